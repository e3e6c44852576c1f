"""What comes back about mail, and the one function that acts on it.

Everything here is idempotent and does not depend on order: timestamps only ever move to an
earlier moment, suppressions are only ever added or strengthened.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, QuerySet

from common.addresses import Address
from contacts.ledger import ConsentChange, record_consents
from contacts.services import subscription_states
from contacts.states import ConsentState
from delivery.bounces import FOR_GOOD, RETURNED, BounceClass, classify_reply, not_hard
from delivery.models import Message, Provider
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import ALL, MARKETING, SuppressionReason


class FeedbackKind(StrEnum):
    """What happened to a mail, in one vocabulary for all providers."""

    DELIVERED = "delivered"
    OPENED = "opened"
    CLICKED = "clicked"
    DEFERRED = "deferred"
    """Not delivered yet; the provider goes on trying."""
    REFUSED = "refused"
    """Turned away in the hand-over itself: no provider has it."""
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OTHER = "other"
    """Known and of no consequence, or unknown."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that came back, whoever told us.

    The message is found by our own id, else by the provider's (`source` names the provider).
    `address` counts when no message is found: the mail's own recipient goes before it.
    """

    kind: FeedbackKind
    at: datetime
    source: str
    message_uuid: UUID | None = None
    esp_id: str = ""
    address: Address | None = None
    bounce_class: BounceClass | None = None
    scope: str = MARKETING
    """How far an unsubscribe reaches."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A piece of feedback and the message it is about, if we know it."""

    feedback: Feedback
    message: Message | None

    @property
    def address(self) -> Address | None:
        """The address the mail was sent to, which the contact may have changed since."""
        if self.message is not None and self.message.email_normalized:
            return Address(self.message.email, self.message.email_normalized)
        return self.feedback.address

    @property
    def bounce_class(self) -> BounceClass | None:
        """Why it came back or was put off. For the latter providers have no types: their words
        are read."""
        if self.feedback.kind is FeedbackKind.DEFERRED and self.feedback.bounce_class is None:
            return not_hard(classify_reply(self.feedback.detail))
        return self.feedback.bounce_class

    @property
    def columns(self) -> list[str]:
        """The moments of the message that this feedback tells."""
        kind = self.feedback.kind
        columns = [_PROVEN] if kind in _PROOFS else []
        soft = kind is FeedbackKind.BOUNCED and self.bounce_class not in FOR_GOOD
        if kind in _TIMESTAMPS and not soft:
            columns.append(_TIMESTAMPS[kind])
        return columns

    @property
    def suppression(self) -> tuple[str, SuppressionReason] | None:
        """Scope and reason to suppress the address for, if any."""
        match self.feedback.kind:
            case FeedbackKind.BOUNCED | FeedbackKind.REFUSED if self.bounce_class in FOR_GOOD:
                return ALL, SuppressionReason.HARD_BOUNCE
            case FeedbackKind.COMPLAINED:
                return MARKETING, SuppressionReason.COMPLAINT
            case FeedbackKind.UNSUBSCRIBED:
                return self.feedback.scope, SuppressionReason.UNSUBSCRIBE
        return None

    @property
    def withdraws(self) -> bool:
        """Whether the consent to the message's topic is gone: taken back, or its giver is."""
        person_said = self.feedback.kind in (FeedbackKind.COMPLAINED, FeedbackKind.UNSUBSCRIBED)
        somebody_else = self.bounce_class is BounceClass.OWNER_CHANGED
        return (
            (person_said or somebody_else)
            and self.message is not None
            and self.message.topic is not None
        )


_ENGAGING = frozenset({FeedbackKind.OPENED, FeedbackKind.CLICKED})

_TIMESTAMPS = {
    FeedbackKind.DELIVERED: "delivered_at",
    FeedbackKind.OPENED: "opened_at",
    FeedbackKind.CLICKED: "clicked_at",
    FeedbackKind.BOUNCED: "bounced_at",
    FeedbackKind.COMPLAINED: "complained_at",
    FeedbackKind.UNSUBSCRIBED: "unsubscribed_at",
}

_COLUMNS = tuple(_TIMESTAMPS.values())

# Nobody can deliver, open, bounce or complain about a mail the provider did not take. An
# unsubscribe is no proof: its link also stands in the preview of a mail that never left.
_PROOFS = frozenset(_TIMESTAMPS) - {FeedbackKind.UNSUBSCRIBED}
_PROVEN = "proven_at"

# A mail was sent at the latest when something came back about it. In `dispatching` the worker
# that holds the message is about to record the same, and the row is left to it; what is stored
# here tells recovery the truth should that worker die.
_MARK = f"""
    WITH news AS (
        SELECT * FROM unnest(%s::uuid[], %s::text[] {", %s::timestamptz[]" * (len(_COLUMNS) + 1)})
               AS n (id, esp_id, {", ".join((_PROVEN, *_COLUMNS))})
    ), locked AS (
        SELECT m.id FROM delivery_message AS m JOIN news USING (id)
        ORDER BY m.id FOR NO KEY UPDATE OF m
    )
    UPDATE delivery_message AS m SET
        {", ".join(f"{column} = LEAST(m.{column}, n.{column})" for column in _COLUMNS)},
        esp_id = CASE WHEN m.esp_id = '' THEN n.esp_id ELSE m.esp_id END,
        sent_at = CASE WHEN m.state = 'dispatching' THEN m.sent_at
                       ELSE LEAST(m.sent_at, n.{_PROVEN}) END
    FROM news AS n JOIN locked USING (id)
    WHERE m.id = n.id
"""  # noqa: S608 - column names from the table above

# From every other state proof wins: an `unknown` is cleared, and one that an operator queued
# again in the meantime is not sent twice (a worker that has claimed it loses the row).
_ACCEPT = """
    UPDATE delivery_message
    SET state = 'sent', reason = '', detail = '', lease_owner = '', lease_until = NULL
    WHERE id = ANY(%s) AND state NOT IN ('sent', 'dispatching')
    RETURNING id
"""


# However often and in whatever order a message came back: once per class, for its first time.
_BOUNCE = """
    INSERT INTO delivery_bounce AS b (message_id, bounce_class, detail, source, at, is_applied)
    SELECT n.*, true
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])
         AS n (message_id, bounce_class, detail, source, at)
    ON CONFLICT (message_id, bounce_class)
    DO UPDATE SET at = LEAST(b.at, excluded.at), is_applied = true
"""

_ENGAGE = """
    WITH news AS (
        SELECT * FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, at)
    ), locked AS (
        SELECT c.id FROM contacts_contact AS c JOIN news USING (id)
        ORDER BY c.id FOR NO KEY UPDATE OF c
    )
    UPDATE contacts_contact AS c SET engaged_at = GREATEST(c.engaged_at, n.at)
    FROM news AS n JOIN locked USING (id)
    WHERE c.id = n.id
"""


def apply_feedback(feedback: Sequence[Feedback]) -> list[dict[str, Any]]:
    """Act on everything that came back; returns what was done about each, in order.

    One transaction; the number of queries does not depend on how much came back. Addresses are
    locked before messages, in the order of the dispatcher.
    """
    if not feedback:
        return []
    with transaction.atomic():
        matches = _match(feedback)
        _suppress(matches)
        _withdraw(matches)
        accepted = _mark(matches)
        _note_bounces(matches)
        _engage(matches)
    return [_outcome(match, accepted) for match in matches]


def _match(feedback: Sequence[Feedback]) -> list[Match]:
    by_uuid = _find_by_uuid(feedback)
    strangers = [item for item in feedback if item.message_uuid not in by_uuid and item.esp_id]
    by_esp_id = _find_by_esp_id(strangers)
    return [
        Match(
            item,
            by_uuid.get(item.message_uuid)
            or by_esp_id.get((item.source, item.esp_id))
            or by_esp_id.get((Provider.Backend.CONFIGURED, item.esp_id)),
        )
        for item in feedback
    ]


def _find_by_uuid(feedback: Iterable[Feedback]) -> dict[UUID | None, Message]:
    wanted = {item.message_uuid for item in feedback if item.message_uuid is not None}
    return {message.pk: message for message in _messages().filter(pk__in=wanted)}


def _find_by_esp_id(feedback: Iterable[Feedback]) -> dict[tuple[str, str], Message]:
    wanted = {item.esp_id for item in feedback}
    backends = {Provider.Backend.CONFIGURED, *(item.source for item in feedback)}
    providers = Provider.objects.filter(backend__in=backends)
    found = _messages().filter(provider__in=providers, esp_id__in=wanted).exclude(esp_id="")
    # Two reads, not one with OR, which no index would serve.
    rows = found.annotate(backend=F("provider__backend"))
    return {(message.backend, message.esp_id): message for message in rows}


def _messages() -> QuerySet[Message]:
    return Message.objects.defer("context").select_related("contact", "topic")


def _suppress(matches: Iterable[Match]) -> None:
    requests = []
    for match in matches:
        if match.suppression is None or match.address is None:
            continue
        scope, reason = match.suppression
        item = match.feedback
        requests.append(SuppressionRequest(match.address, scope, reason, item.source, item.detail))
    suppress_addresses(requests)


def _withdraw(matches: Iterable[Match]) -> None:
    """Take back the consents that are not taken back yet, each once."""
    wanted: dict[tuple[int, int], ConsentChange] = {}
    for match in matches:
        message = match.message
        if match.withdraws and message is not None and message.topic is not None:
            wanted[message.contact_id, message.topic.pk] = ConsentChange(
                message.contact,
                message.topic,
                ConsentState.WITHDRAWN,
                match.feedback.source,
                match.feedback.detail,
            )
    if not wanted:
        return
    states = subscription_states(contact_id for contact_id, _ in wanted)
    record_consents([c for key, c in wanted.items() if states.get(key) != ConsentState.WITHDRAWN])


def _mark(matches: Iterable[Match]) -> set[UUID]:
    """Write the moments onto the messages; returns those that became `sent` by it."""
    moments: dict[UUID, dict[str, datetime]] = {}
    esp_ids: dict[UUID, str] = {}
    for match in matches:
        if match.message is None or not match.columns:
            continue
        row = moments.setdefault(match.message.pk, {})
        for column in match.columns:
            row[column] = min(match.feedback.at, row.get(column, match.feedback.at))
        esp_ids[match.message.pk] = esp_ids.get(match.message.pk) or match.feedback.esp_id
    if not moments:
        return set()
    times = [[row.get(column) for row in moments.values()] for column in (_PROVEN, *_COLUMNS)]
    proven = [message_id for message_id, row in moments.items() if _PROVEN in row]
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [list(moments), list(esp_ids.values()), *times])
        cursor.execute(_ACCEPT, [proven])
        return {message_id for (message_id,) in cursor.fetchall()}


def _note_bounces(matches: Iterable[Match]) -> None:
    first: dict[tuple[UUID, str], Match] = {}
    for match in sorted(matches, key=lambda match: match.feedback.at):
        bounce_class = match.bounce_class
        if match.message is not None and bounce_class in RETURNED:
            first.setdefault((match.message.pk, str(bounce_class)), match)
    if first:
        rows = [
            (*key, m.feedback.detail[:500], m.feedback.source, m.feedback.at)
            for key, m in sorted(first.items())
        ]
        with connection.cursor() as cursor:
            cursor.execute(_BOUNCE, [list(column) for column in zip(*rows, strict=True)])


def _engage(matches: Iterable[Match]) -> None:
    last: dict[int, datetime] = {}
    for match in matches:
        if match.message is not None and match.feedback.kind in _ENGAGING:
            contact = match.message.contact_id
            last[contact] = max(match.feedback.at, last.get(contact, match.feedback.at))
    if last:
        with connection.cursor() as cursor:
            cursor.execute(_ENGAGE, [list(last), list(last.values())])


def _outcome(match: Match, accepted: set[UUID]) -> dict[str, Any]:
    """What the receipt shows. No address: that stands in its body, which can be erased."""
    item, message = match.feedback, match.message
    effects = [column for column in match.columns if column != _PROVEN and message is not None]
    if message is not None and message.pk in accepted:
        effects.append("sent")
    if match.suppression is not None:
        known = match.address is not None
        effects.append(f"suppressed:{match.suppression[0]}" if known else "no_address")
    if match.withdraws and message is not None and message.topic is not None:
        effects.append(f"withdrawn:{message.topic.key}")
    return {
        "kind": item.kind.value,
        "class": match.bounce_class or "",
        "message": str(message.pk) if message is not None else None,
        "effects": effects,
    }
