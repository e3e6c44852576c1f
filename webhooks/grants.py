"""Whether people have asked for mail again since they said what came in late, or once more."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Q

from contacts.models import Subscription
from contacts.states import ConsentState
from suppression.states import topic_scope
from webhooks.kinds import FeedbackKind
from webhooks.matching import Match

_SAID = frozenset({FeedbackKind.COMPLAINED, FeedbackKind.UNSUBSCRIBED})


class Grants:
    """The consents on record that people gave after something about them was known."""

    def __init__(self, rows: Iterable[tuple[int, str | None, int, str, datetime]] = ()) -> None:
        self._of_contact: dict[int, list[tuple[int, str, datetime]]] = defaultdict(list)
        self._of_address: dict[str, list[tuple[int, str, datetime]]] = defaultdict(list)
        for contact_id, address, topic_id, key, at in rows:
            self._of_contact[contact_id].append((topic_id, key, at))
            self._of_address[address or ""].append((topic_id, key, at))

    def outdate_suppression(self, match: Match) -> bool:
        """Whether a person who wanted no more mail of this scope has asked for some since."""
        known_at, suppression = match.feedback.known_at, match.suppression
        if known_at is None or suppression is None or match.feedback.kind not in _SAID:
            return False
        # Any topic would have ended an unsubscribe from all of them.
        scope = suppression[0]
        return any(
            at > known_at and (not scope.startswith(topic_scope("")) or scope == topic_scope(key))
            for _, key, at in self._about(match)
        )

    def outdate_withdrawal(self, match: Match) -> bool:
        """Whether consent to the message's topic was given since."""
        known_at, message = match.feedback.known_at, match.message
        if known_at is None or message is None:
            return False
        return any(
            at > known_at and topic_id == message.topic_id
            for topic_id, _, at in self._of_contact.get(message.contact_id, ())
        )

    def _about(self, match: Match) -> Sequence[tuple[int, str, datetime]]:
        address, message = match.address, match.message
        own = self._of_contact.get(message.contact_id, []) if message is not None else []
        return own + (self._of_address.get(address.normalized, []) if address is not None else [])


def grants_since(matches: Iterable[Match]) -> Grants:
    """What people have granted that could outdate any of this. One query; none where everything
    is told as it happens. To be asked under the lock of the addresses."""
    dated = [
        m for m in matches if m.feedback.known_at is not None and (m.suppression or m.withdraws)
    ]
    moments = [m.feedback.known_at for m in dated if m.feedback.known_at is not None]
    if not moments:
        return Grants()
    addresses = {m.address.normalized for m in dated if m.address is not None}
    contacts = {m.message.contact_id for m in dated if m.message is not None}
    rows = Subscription.objects.filter(
        Q(contact__email_normalized__in=addresses) | Q(contact__in=contacts),
        state=ConsentState.GRANTED,
        at__gt=min(moments),
    )
    return Grants(
        rows.values_list("contact", "contact__email_normalized", "topic", "topic__key", "at")
    )
