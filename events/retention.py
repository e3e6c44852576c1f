"""What is no longer kept: events, refusals and replies past their time. Runs as often as it likes,
stops in the middle without harm, and goes on where it stopped."""

from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from common.retention import purge_received
from events.idempotency import KEPT
from events.models import Consumer, IdempotentReply, Rejection
from events.states import EventState


def purge(*, most: int = 1_000_000) -> int:
    """Delete what is past its retention; returns how many events went, at most about `most`.

    With an event goes the memory of its id: posted again after `events.retention_days`, it is a
    new one.
    """
    days = settings.EMAILAUTO.events.retention_days
    IdempotentReply.objects.filter(created_at__lt=Now() - KEPT).delete()
    Rejection.objects.filter(last_at__lt=Now() - timedelta(days=days)).delete()
    Consumer.objects.filter(seen_at__lt=Now() - timedelta(days=days)).delete()
    # Dead letters stay until somebody decides.
    settled = (EventState.PROCESSED, EventState.IGNORED)
    return purge_received("events_event", settled, days=days, most=most)
