"""One call to a provider, and what became of the messages in it."""

from collections.abc import Sequence
from dataclasses import replace

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from common.addresses import mask_addresses
from delivery.journal import Journal
from delivery.outbound import OutboundEmail
from delivery.routes import Route
from delivery.turns import Departed, Handed
from delivery.verdicts import Outcome, Verdict, storable, verdict_of

_LONGEST_DETAIL = 300


def call(
    door: BaseEmailBackend,
    begun: Sequence[Departed],
    route: Route,
    journal: Journal | None,
) -> list[Handed]:
    """Offer the messages to the provider in one call; what came of each, noted in the journal."""
    if not begun:
        return []
    emails: list[EmailMessage] = []
    for item in begun:
        item.outbound.email.attempt = item.attempt
        emails.append(item.outbound.email)
    try:
        door.send_messages(emails)
    except Exception as error:  # noqa: BLE001 - every fault has a verdict, the unforeseen is UNKNOWN
        verdict = verdict_of(error, route.traits)
        handed = [Handed(item, shown(verdict, route)) for item in begun]
    else:
        handed = [Handed(item, shown(accepted(item.outbound.email), route)) for item in begun]
    if journal is not None:
        journal.done((h.departed.outbound.message.pk, h.verdict) for h in handed)
    return handed


def shown(verdict: Verdict, route: Route) -> Verdict:
    """The verdict as it may be stored: short, without our secrets and without addresses."""
    if not verdict.detail:
        return verdict
    # First of all our secrets: half of one, or what is left of one that looks like an address,
    # would not be recognised.
    detail = mask_addresses(route.redacted(verdict.detail))
    return replace(verdict, detail=detail[:_LONGEST_DETAIL])


def accepted(email: OutboundEmail) -> Verdict:
    """What a backend that raised nothing has said about the mail."""
    if email.verdict is not None:
        return email.verdict
    status = getattr(email, "anymail_status", None)
    if status is None or status.status is None:
        return Verdict(Outcome.ACCEPTED)
    if status.status <= {"rejected", "invalid", "failed"}:
        return Verdict(
            Outcome.PERMANENT,
            f"the provider answered: {', '.join(status.status)}",
            own_fault="failed" not in status.status,
        )
    return Verdict(Outcome.ACCEPTED, esp_id=storable(status.message_id))
