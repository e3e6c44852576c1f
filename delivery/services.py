"""What operators do with messages: replay, discard, resolve, stop and resume."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from common.bell import ring
from delivery.circuits import close
from delivery.models import Message, Pardon, Provider, Sender, Switch
from delivery.recovery import release_held
from delivery.senderpauses import forget
from delivery.states import DEAD_LETTER_STATES, DUE_STATES, MessageState, Reason, Stream

_FRESH: dict[str, Any] = {
    "state": MessageState.QUEUED,
    "reason": "",
    "detail": "",
    "failures": 0,
    "crashes": 0,
    "due_at": Now(),
    "replay_until": None,
    # What its provider rejected it does not have: the id it gave is of nothing, and no proof.
    "esp_id": Case(When(rejected_at__isnull=False, then=Value("")), default=F("esp_id")),
    "rejected_at": None,
}


def replay_messages(ids: Iterable[UUID]) -> int:
    """failed, dead or held → queued with a fresh count of attempts; returns how many moved.

    Safe against doubling: in these states the provider provably does not have the message.
    """
    states = (*DEAD_LETTER_STATES, MessageState.HELD)
    known = Message.objects.filter(pk__in=list(ids), state__in=states, replay_until=None)
    return _wake(known.update(**_FRESH))


def discard_messages(ids: Iterable[UUID]) -> int:
    """failed, dead, held or unknown → skipped, for good; returns how many moved."""
    states = (*DEAD_LETTER_STATES, MessageState.HELD, MessageState.UNKNOWN)
    return Message.objects.filter(pk__in=list(ids), state__in=states).update(
        state=MessageState.SKIPPED, reason=Reason.DISCARDED
    )


def skip_held(campaign: str) -> int:
    """held → skipped, for the mails of a campaign that was stopped; returns how many moved."""
    held = Message.objects.filter(state=MessageState.HELD, origin_campaign=campaign)
    return held.update(state=MessageState.SKIPPED, reason=Reason.CAMPAIGN_STOPPED, detail="")


def mark_unknown_sent(ids: Iterable[UUID]) -> int:
    """unknown → sent: an operator saw in the provider's log that it was taken."""
    return Message.objects.filter(pk__in=list(ids), state=MessageState.UNKNOWN).update(
        state=MessageState.SENT, reason="", sent_at=Now()
    )


def resend_unknown(ids: Iterable[UUID]) -> int:
    """unknown → queued: an operator saw in the provider's log that it was *not* taken."""
    return _wake(
        Message.objects.filter(pk__in=list(ids), state=MessageState.UNKNOWN).update(**_FRESH)
    )


def stop_sending(
    target: str,
    key: str = "",
    *,
    reason: Reason = Reason.KILL_SWITCH,
    note: str = "",
    per_hour: int | None = None,
    lasts: timedelta | None = None,
) -> Switch:
    """Hold everything, or one campaign's, provider's or sending domain's mail, from the next gate
    on; with `per_hour` only what is beyond that. Idempotent; a later reason replaces an earlier
    one. Without `lasts` it is lifted by hand."""
    values = {
        "reason": reason,
        "note": note,
        "per_hour": per_hour,
        "until": Now() + lasts if lasts is not None else None,
    }
    switch, _ = Switch.objects.update_or_create(target=target, key=key, defaults=values)
    return switch


def resume_sending(
    target: str, key: str = "", *, by_itself: bool = False, pardons: bool = True
) -> int:
    """Lift the stop and release what it held; returns how many messages are queued again.

    What the breaker stopped is pardoned: mail sent until now is not held against it any more. What
    is released by then counts.
    """
    with transaction.atomic():
        lifted = Switch.objects.filter(target=target, key=key)
        if pardons and lifted.filter(reason=Reason.REPUTATION).exists():
            _pardon(target, key, by_itself=by_itself)
        if lifted.filter(per_hour__isnull=False).exists():
            slowed = Message.objects.filter(state=MessageState.HELD, reason=Reason.SLOWED)
            slowed.update(due_at=Now())
        lifted.delete()
        released = release_held()
    return _wake(released)


def _pardon(target: str, key: str, *, by_itself: bool) -> None:
    pardon, _ = Pardon.objects.get_or_create(target=target, key=key, defaults={"at": Now()})
    pauses = F("pauses") + 1 if by_itself else 0
    Pardon.objects.filter(pk=pardon.pk).update(at=Now(), pauses=pauses)


def try_again(provider: Provider) -> int:
    """Close the provider's circuit and let every sender try because the cause is put right; returns
    how many messages that waited for it are due."""
    close(provider)
    forget(provider)
    barred = Message.objects.filter(state=MessageState.HELD, reason=Reason.SENDER_REFUSED)
    held = barred.update(state=MessageState.QUEUED, reason="", detail="", due_at=Now())
    waiting = Message.objects.filter(state__in=DUE_STATES, due_at__gt=Now())
    through = Q(provider=provider) | Q(reason=Reason.PROVIDER_DOWN, detail=provider.key)
    return _wake(held + waiting.filter(through).update(due_at=Now()))


def make_default_sender(sender: Sender) -> None:
    """The sender of every campaign that names none, in place of the one before."""
    with transaction.atomic():
        Sender.objects.filter(is_default=True).update(is_default=False)
        Sender.objects.filter(pk=sender.pk).update(is_default=True)


def _wake(moved: int) -> int:
    if moved:
        ring(Stream.TRANSACTIONAL.value, Stream.MARKETING.value)
    return moved
