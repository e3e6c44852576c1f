"""Handing committed messages to their providers, each at most once.

Before a message's first byte its right is claimed in the batch's journal; after the answer its
verdict is noted there. So a crash leaves at most one call in doubt, and a worker that was frozen
past its lease finds its right revoked. Without a journal a batch is one message long.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from delivery.connections import pool
from delivery.journal import Journal, JournalLost
from delivery.models import Provider
from delivery.outbound import Outbound, OutboundEmail
from delivery.routes import Route, RouteError
from delivery.verdicts import Outcome, Verdict, of_connection, verdict_of

# A batch that is slow to hand over gives the rest back rather than outliving its lease or a
# polite shutdown.
MAX_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Departed:
    """A message whose hand-over is committed, with the number of this attempt and the moment
    (`time.monotonic`) from which its provider's pace allows it."""

    outbound: Outbound
    attempt: int
    not_before: float


@dataclass(frozen=True, slots=True)
class Handed:
    """What came of a departed message."""

    departed: Departed
    verdict: Verdict


def hand_over(
    departed: Sequence[Departed],
    routes: Mapping[Provider, Route | RouteError],
    journal: Journal | None,
) -> list[Handed]:
    """Offer each message to its provider. Those that are missing in the answer were not begun:
    time ran out, or the right to begin them could not be had."""
    deadline = time.monotonic() + min(MAX_SECONDS, settings.LEASE_SECONDS / 2)
    groups: dict[Provider, list[Departed]] = defaultdict(list)
    for item in departed:
        groups[item.outbound.provider].append(item)
    handed: list[Handed] = []
    for provider, group in groups.items():
        route = routes[provider]
        if isinstance(route, RouteError):
            verdict = Verdict(Outcome.RETRY, str(route), retry_after=60.0, spares_attempt=True)
            handed.extend(Handed(item, verdict) for item in group)
            continue
        group.sort(key=lambda item: item.not_before)
        with pool.borrow(provider.key, route) as connection:
            handed.extend(_through(connection, route.batch_size, group, journal, deadline))
    return handed


def _through(
    connection: BaseEmailBackend,
    size: int,
    group: Sequence[Departed],
    journal: Journal | None,
    deadline: float,
) -> Iterator[Handed]:
    for start in range(0, len(group), size):
        chunk = group[start : start + size]
        if not _wait_until(chunk[-1].not_before, deadline):
            return
        try:
            connection.open()
        except Exception as error:  # noqa: BLE001 - any backend's; nothing was handed over
            verdict = of_connection(error)
            yield from (Handed(item, verdict) for item in group[start:])
            return
        try:
            begun = _begin(chunk, journal)
        except JournalLost:
            return
        yield from _call(connection, begun, journal)


def _wait_until(moment: float, deadline: float) -> bool:
    now = time.monotonic()
    if max(now, moment) >= deadline:
        return False
    if moment > now:
        time.sleep(moment - now)
    return True


def _begin(chunk: Sequence[Departed], journal: Journal | None) -> list[Departed]:
    if journal is None:
        return list(chunk)
    rights = journal.begin([item.outbound.message.pk for item in chunk])
    return [item for item, right in zip(chunk, rights, strict=True) if right]


def _call(
    connection: BaseEmailBackend, begun: Sequence[Departed], journal: Journal | None
) -> list[Handed]:
    if not begun:
        return []
    emails: list[EmailMessage] = []
    for item in begun:
        item.outbound.email.attempt = item.attempt
        emails.append(item.outbound.email)
    try:
        connection.send_messages(emails)
    except Exception as error:  # noqa: BLE001 - every fault has a verdict, the unforeseen is UNKNOWN
        verdict = verdict_of(error)
        handed = [Handed(item, verdict) for item in begun]
    else:
        handed = [Handed(item, _accepted(item.outbound.email)) for item in begun]
    if journal is not None:
        journal.done((h.departed.outbound.message.pk, h.verdict) for h in handed)
    return handed


def _accepted(email: OutboundEmail) -> Verdict:
    if email.verdict is not None:
        return email.verdict
    status = getattr(email, "anymail_status", None)
    if status is None or status.status is None:
        return Verdict(Outcome.ACCEPTED)
    if status.status <= {"rejected", "invalid", "failed"}:
        return Verdict(Outcome.PERMANENT, f"the provider answered: {', '.join(status.status)}")
    esp_id = status.message_id if isinstance(status.message_id, str) else ""
    return Verdict(Outcome.ACCEPTED, esp_id=esp_id)
