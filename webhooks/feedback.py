"""The one function that acts on what comes back about mail.

Everything here is idempotent and does not depend on order: moments only ever move to an earlier
one, suppressions are only ever added or strengthened, and the one that passes by itself follows
from the rows.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction

from common.addresses import address_hash
from contacts.ledger import ConsentChange, Objection, record_consents, record_objections
from contacts.services import people_at, subscription_states
from contacts.states import ConsentState
from suppression.services import (
    SuppressionRequest,
    forgotten_addresses,
    lock_addresses,
    suppress_addresses,
)
from webhooks.grants import Grants, grants_since
from webhooks.kinds import WATCHED, Feedback, FeedbackKind
from webhooks.limits import addresses_to_judge, judge_addresses
from webhooks.marks import Marked, mark
from webhooks.matching import Match, match
from webhooks.news import news_of, tell
from webhooks.outgoing.fanout import queue_deliveries

__all__ = ["FORGOTTEN", "Feedback", "FeedbackKind", "apply_feedback"]

FORGOTTEN = "forgotten"
"""The effect on what is about somebody who was erased: nothing of it is kept in clear."""


def apply_feedback(feedback: Sequence[Feedback]) -> list[dict[str, Any]]:
    """Act on everything that came back; returns what was done about each, in order.

    One transaction; the number of queries does not depend on how much came back. Addresses are
    locked before messages, in the order of the dispatcher.
    """
    if not feedback:
        return []
    with transaction.atomic():
        found = [_as_agreed(item) for item in match(feedback)]
        matches = [_without_words(item) if item.is_forgotten else item for item in found]
        judged = addresses_to_judge(matches)
        lock_addresses({*_named(matches), *map(address_hash, judged)}, shared=False)
        grants = grants_since(matches)
        _suppress(matches, grants)
        _withdraw(matches, grants)
        objections = _objections(matches, grants)
        marked = mark(matches, touching=[objection.contact_id for objection in objections])
        record_objections(objections)
        judge_addresses(judged)
        news = news_of([item for item in matches if not item.is_forgotten], marked)
        tell(news)
        queue_deliveries(news)
    forgotten = forgotten_addresses(
        address_hash(item.address.normalized) for item in feedback if item.address is not None
    )
    return [_outcome(match, marked, grants, forgotten) for match in matches]


def _without_words(match: Match) -> Match:
    """What a server or a person said names people; of the erased none of it is kept."""
    return replace(match, feedback=replace(match.feedback, detail=""))


def _as_agreed(found: Match) -> Match:
    """Who did not agree to be watched is not, however a provider is set up: what it tells of them
    shows that it has the mail, and that is all."""
    message, told = found.message, found.feedback
    if message is None or told.kind not in WATCHED or message.contact.may_track:
        return found
    return replace(found, feedback=replace(told, kind=FeedbackKind.ACCEPTED, detail=""))


def _named(matches: Iterable[Match]) -> Iterator[bytes]:
    """The addresses about which something is decided, all at once: in two goes two batches could
    each hold what the other one waits for."""
    for item in matches:
        if item.suppression is not None and item.address is not None:
            yield address_hash(item.address.normalized)
        is_decided = item.withdraws or item.objects
        if is_decided and item.message is not None and item.message.contact.email_normalized:
            yield address_hash(item.message.contact.email_normalized)


def _suppress(matches: Iterable[Match], grants: Grants) -> None:
    requests = []
    for item in matches:
        if item.suppression is None or item.address is None or grants.outdate_suppression(item):
            continue
        scope, reason = item.suppression
        told = item.feedback
        # What has been lifted since, by whomever, is not to come back by the same telling.
        if told.is_repeated and item.address == told.address:
            continue
        requests.append(SuppressionRequest(item.address, scope, reason, told.source, told.detail))
    suppress_addresses(requests)


def _withdraw(matches: Iterable[Match], grants: Grants) -> None:
    """Take back the consents that are not taken back yet, each once."""
    wanted: dict[tuple[int, int], ConsentChange] = {}
    for item in matches:
        message = item.message
        if grants.outdate_withdrawal(item):
            continue
        if item.withdraws and message is not None and message.topic is not None:
            wanted[message.contact_id, message.topic.pk] = ConsentChange(
                message.contact,
                message.topic,
                ConsentState.WITHDRAWN,
                item.feedback.source,
                item.feedback.detail,
            )
    if not wanted:
        return
    states = subscription_states(contact_id for contact_id, _ in wanted)
    record_consents([c for key, c in wanted.items() if states.get(key) != ConsentState.WITHDRAWN])


def _objections(matches: Iterable[Match], grants: Grants) -> list[Objection]:
    """Who wants no marketing mail any more. An address can be left; this goes with the person."""
    items = [item for item in matches if item.objects and not grants.outdate_suppression(item)]
    strangers = {i.address.normalized for i in items if i.message is None and i.address is not None}
    owners = people_at(strangers)
    found = []
    for item in items:
        if item.message is not None:
            contact_id: int | None = item.message.contact_id
        else:
            contact_id = owners.get(item.address.normalized) if item.address is not None else None
        if contact_id is not None:
            found.append(Objection(contact_id, item.feedback.source, item.feedback.detail))
    return found


def _outcome(
    match: Match, marked: Marked, grants: Grants, forgotten: Collection[bytes]
) -> dict[str, Any]:
    """What the receipt shows. No address: that stands in its body, which can be erased, and is
    as soon as it is applied where an effect says `FORGOTTEN`."""
    message, named = match.message, match.feedback.address
    effects = [match.moment] if match.moment and message is not None else []
    if message is not None and message.pk in marked.accepted:
        effects.append("sent")
    if message is not None and message.pk in marked.rejected:
        effects.append("failed")
    if grants.outdate_suppression(match):
        effects.append("outdated")
    elif match.suppression is not None:
        known = match.address is not None
        effects.append(f"suppressed:{match.suppression[0]}" if known else "no_address")
    is_withdrawn = match.withdraws and not grants.outdate_withdrawal(match)
    if is_withdrawn and message is not None and message.topic is not None:
        effects.append(f"withdrawn:{message.topic.key}")
    if match.is_forgotten or (named and address_hash(named.normalized) in forgotten):
        effects.append(FORGOTTEN)
    return {
        "kind": match.feedback.kind.value,
        "class": match.bounce_class or "",
        "message": str(message.pk) if message is not None else None,
        "effects": effects,
    }
