"""The engine's drains."""

from celery import shared_task

from campaigns import engine, timers
from common.bell import answer, ring

_BUDGET_SECONDS = 1.0


@shared_task(name="drain.events")
def drain_events() -> None:
    answer("events")
    if engine.drain(budget=_BUDGET_SECONDS):
        ring("events")


@shared_task(name="drain.timers")
def drain_timers() -> None:
    answer("timers")
    if timers.drain(budget=_BUDGET_SECONDS):
        ring("timers")
