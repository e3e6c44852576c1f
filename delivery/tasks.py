"""The delivery lanes' drains."""

from celery import shared_task

from common.bell import answer, ring
from delivery.engine import drain
from delivery.link_store import purge_links
from delivery.states import Stream

# Short: whoever shares the worker gets its turn, and a shutdown finds a gap.
_BUDGET_SECONDS = 1.0


@shared_task(name="drain.transactional")
def drain_transactional() -> None:
    _drain(Stream.TRANSACTIONAL)


@shared_task(name="drain.marketing")
def drain_marketing() -> None:
    _drain(Stream.MARKETING)


def _drain(stream: Stream) -> None:
    answer(stream.value)
    if drain(stream.value, budget=_BUDGET_SECONDS):
        ring(stream.value)


@shared_task(name="delivery.purge_links")
def purge_links_task() -> None:
    purge_links()
