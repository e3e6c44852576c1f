"""What contacts, the inbox, the suppression list and the admin's log hold of a person."""

from collections.abc import Iterator
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q

from contacts.dsar import Part, Person, Row, in_windows, register
from contacts.models import Consent, Contact, Erasure, Subscription
from events.models import Event, IdempotentReply, Rejection
from suppression.models import Suppression

_PROFILE = (
    *("id", "user_id", "email", "name", "attributes", "region", "locale", "is_active"),
    *(
        "may_track",
        "objected_at",
        "do_not_share",
        "paused_until",
        "weekly_limit",
        "engaged_at",
        "created_at",
    ),
)
_CONSENT = ("at", "purpose", "topic__key", "state", "source", "evidence")
_EVENT = ("received_at", "occurred_at", "source", "event_id", "type", "user_id")

# Theirs, or nobody's that names them. The event stays as a number: its id is what keeps it from
# being processed twice.
_EMPTY_OWN = """
    UPDATE events_event
    SET payload = '{}', metadata = '{}', user_id = '', outcome = '[]', note = '',
        error = CASE WHEN state = 'dead' THEN 'erased' ELSE '' END,
        reason = CASE WHEN state = 'pending' THEN 'discarded' ELSE reason END,
        event_id = CASE WHEN event_id ~* %(own)s THEN 'erased-' || id ELSE event_id END,
        lease_owner = '', claimed_until = NULL,
        state = CASE WHEN state = 'pending' THEN 'ignored' ELSE state END
    WHERE id > %(after)s AND id <= %(upto)s
          AND (contact_id = %(contact)s OR (%(user)s <> '' AND user_id = %(user)s)
               OR (contact_id IS NULL
                   AND concat_ws(' ', payload, metadata, user_id, event_id, error) ~* %(pattern)s))
"""

# In what is somebody else's only the address goes.
_REDACT_OTHERS = """
    UPDATE events_event
    SET payload = regexp_replace(payload::text, %(pattern)s, 'erased', 'gi')::jsonb,
        metadata = regexp_replace(metadata::text, %(pattern)s, 'erased', 'gi')::jsonb,
        user_id = regexp_replace(user_id, %(pattern)s, 'erased', 'gi'),
        error = regexp_replace(error, %(pattern)s, 'erased', 'gi'),
        event_id = CASE WHEN event_id ~* %(pattern)s THEN 'erased-' || id ELSE event_id END
    WHERE id > %(after)s AND id <= %(upto)s
          AND concat_ws(' ', payload, metadata, user_id, event_id, error) ~* %(pattern)s
"""

_DELETE_REJECTIONS = """
    DELETE FROM events_rejection
    WHERE id > %(after)s AND id <= %(upto)s
          AND (body::text ~* %(pattern)s OR problems::text ~* %(pattern)s
               OR event_id ~* %(pattern)s OR note ~* %(pattern)s
               OR (%(user)s <> '' AND body ->> 'user_id' = %(user)s))
"""

_DELETE_REPLIES = """
    DELETE FROM events_idempotentreply
    WHERE id > %(after)s AND id <= %(upto)s
          AND (key ~* %(pattern)s OR encode(body, 'escape') ~* %(pattern)s)
"""


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("profile", (Contact, Erasure), _profile, _forget_log))
    register(Part("consents", (Consent, Subscription), _consents, _erase_consents))
    inbox = (Event, Rejection, IdempotentReply)
    register(Part("events", inbox, _events, _erase_events))
    register(Part("suppressions", (Suppression,), _suppressions, _erase_suppressions))


def _profile(person: Person) -> Iterator[Row]:
    yield from Contact.objects.filter(pk=person.contact_id).values(*_PROFILE)


def _consents(person: Person) -> Iterator[Row]:
    yield from Consent.objects.filter(contact=person.contact_id).values(*_CONSENT)


def _events(person: Person) -> Iterator[Row]:
    theirs = Q(contact_id=person.contact_id)
    if person.user_id:
        theirs |= Q(user_id=person.user_id)
    # What is somebody else's and names them is somebody else's to see.
    nobodys = Q(contact_id=None, user_id="", payload__iregex=person.pattern)
    events = Event.objects.filter(theirs | nobodys)
    yield from events.order_by("pk").values(*_EVENT, "payload", "metadata")


def _suppressions(person: Person) -> Iterator[Row]:
    rows = Suppression.objects.filter(address_hash__in=person.hashes)
    yield from rows.values("created_at", "scope", "reason", "source", "evidence")


def _forget_log(person: Person) -> None:
    """The contact's own row is last; before it goes what the admin's log quotes of it."""
    kind = ContentType.objects.get_for_model(Contact)
    theirs = LogEntry.objects.filter(content_type=kind, object_id=str(person.contact_id))
    named = LogEntry.objects.filter(
        Q(object_repr__iregex=person.pattern) | Q(change_message__iregex=person.pattern)
    )
    for entries in (theirs, named):
        entries.update(object_repr="erased", change_message="")


def _erase_consents(person: Person) -> None:
    Consent.objects.filter(contact=person.contact_id).delete()
    Subscription.objects.filter(contact=person.contact_id).delete()


def _erase_events(person: Person) -> None:
    values = _values(person)
    in_windows("events_event", _EMPTY_OWN, values)
    in_windows("events_event", _REDACT_OTHERS, values)
    in_windows("events_rejection", _DELETE_REJECTIONS, values)
    in_windows("events_idempotentreply", _DELETE_REPLIES, values)


def _erase_suppressions(person: Person) -> None:
    # The hash stays: it is what keeps the address from being mailed when it comes in again.
    rows = Suppression.objects.filter(address_hash__in=person.hashes)
    rows.update(email="", evidence="")


def _values(person: Person) -> dict[str, Any]:
    return {
        "contact": person.contact_id,
        "user": person.user_id,
        "pattern": person.pattern,
        "own": person.own_pattern,
    }
