"""What contacts, the inbox, the suppression list and the admin's log hold of a person."""

import json
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.models import ContentType

from contacts.dsar import Part, Person, Row, Sweep, found_in_windows, in_windows, register
from contacts.models import Consent, Contact, Erasure, Subscription
from contacts.spellings import naming
from events.erased import PREFIX, erased_id
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
_REFUSED = ("first_at", "source", "event_id", "type", "code", "problems", "body", "times")

_ID = f"""CASE WHEN event_id ~* %({{pattern}})s AND event_id NOT LIKE '{PREFIX}%%'
                    THEN {erased_id("source", "event_id", "%(key)s")} ELSE event_id END"""

_OF_NOBODY = f"""
    contact_id IS NULL AND user_id = ''
    AND {naming("concat_ws(' ', payload, metadata, event_id, error)")}
"""

# Theirs, or nobody's that names them. The event stays as a number: its id is what keeps it from
# being processed twice.
_EMPTY_OWN = f"""
    UPDATE events_event
    SET payload = '{{}}', metadata = '{{}}', user_id = '', outcome = '[]', note = '',
        error = CASE WHEN state = 'dead' THEN 'erased' ELSE '' END,
        reason = CASE WHEN state = 'pending' THEN 'discarded' ELSE reason END,
        event_id = {_ID.format(pattern="own")},
        lease_owner = '', claimed_until = NULL,
        state = CASE WHEN state = 'pending' THEN 'ignored' ELSE state END
    WHERE id > %(after)s AND id <= %(upto)s
          AND (contact_id = %(contact)s
               OR (received_at <= %(until)s
                   AND ((%(user)s <> '' AND user_id = %(user)s) OR ({_OF_NOBODY}))))
"""  # noqa: S608 - constants of this module

# In what is somebody else's only the address goes.
_REDACT_OTHERS = f"""
    UPDATE events_event
    SET payload = regexp_replace(payload::text, %(pattern)s, 'erased', 'gi')::jsonb,
        metadata = regexp_replace(metadata::text, %(pattern)s, 'erased', 'gi')::jsonb,
        user_id = regexp_replace(user_id, %(pattern)s, 'erased', 'gi'),
        error = regexp_replace(error, %(pattern)s, 'erased', 'gi'),
        event_id = {_ID.format(pattern="pattern")}
    WHERE id > %(after)s AND id <= %(upto)s AND received_at <= %(until)s
          AND {naming("concat_ws(' ', payload, metadata, user_id, event_id, error)")}
"""  # noqa: S608

# The native shape, CloudEvents' and Segment's.
_REFUSED_USER = "coalesce(body ->> 'user_id', body ->> 'userId', body #>> '{data,user_id}', '')"
_REFUSED_TEXT = "concat_ws(' ', body, problems, event_id, note)"
_REFUSED_OWN = f"""
    (%(user)s <> '' AND {_REFUSED_USER} = %(user)s)
    OR ({_REFUSED_USER} = '' AND {naming(_REFUSED_TEXT)})
"""

_DELETE_REFUSED = f"""
    DELETE FROM events_rejection WHERE id > %(after)s AND id <= %(upto)s AND ({_REFUSED_OWN})
"""  # noqa: S608

_REDACT_REFUSED = f"""
    UPDATE events_rejection
    SET body = regexp_replace(body::text, %(pattern)s, 'erased', 'gi')::jsonb,
        problems = regexp_replace(problems::text, %(pattern)s, 'erased', 'gi')::jsonb,
        note = regexp_replace(note, %(pattern)s, 'erased', 'gi'),
        event_id = CASE WHEN event_id ~* %(pattern)s THEN 'erased-' || id ELSE event_id END
    WHERE id > %(after)s AND id <= %(upto)s AND {naming(_REFUSED_TEXT)}
"""  # noqa: S608

_DELETE_REPLIES = f"""
    DELETE FROM events_idempotentreply
    WHERE id > %(after)s AND id <= %(upto)s
          AND ({naming("key")} OR {naming("encode(body, 'escape')")})
"""  # noqa: S608

# What is known of others and names them.
_REDACT_PROFILES = f"""
    UPDATE contacts_contact
    SET name = regexp_replace(name, %(pattern)s, 'erased', 'gi'),
        attributes = regexp_replace(attributes::text, %(pattern)s, 'erased', 'gi')::jsonb
    WHERE id > %(after)s AND id <= %(upto)s AND {naming("concat_ws(' ', name, attributes)")}
"""  # noqa: S608

_REDACT_CONSENTS = f"""
    UPDATE contacts_consent
    SET source = regexp_replace(source, %(pattern)s, 'erased', 'gi'),
        evidence = regexp_replace(evidence, %(pattern)s, 'erased', 'gi')
    WHERE id > %(after)s AND id <= %(upto)s AND {naming("concat_ws(' ', source, evidence)")}
"""  # noqa: S608

_REDACT_SUPPRESSIONS = f"""
    UPDATE suppression_suppression
    SET source = regexp_replace(source, %(pattern)s, 'erased', 'gi'),
        evidence = regexp_replace(evidence, %(pattern)s, 'erased', 'gi'),
        beneath = regexp_replace(beneath::text, %(pattern)s, 'erased', 'gi')::jsonb
    WHERE id > %(after)s AND id <= %(upto)s
          AND {naming("concat_ws(' ', source, evidence, beneath)")}
"""  # noqa: S608

_REDACT_LOG = f"""
    UPDATE django_admin_log SET object_repr = 'erased', change_message = ''
    WHERE id > %(after)s AND id <= %(upto)s
          AND ((content_type_id = %(kind)s AND object_id = %(contact)s::text)
               OR {naming("concat_ws(' ', object_repr, change_message)")})
"""  # noqa: S608

_FIND_EVENTS = f"""
    SELECT {", ".join(_EVENT)}, payload, metadata FROM events_event
    WHERE id > %(after)s AND id <= %(upto)s
          AND (contact_id = %(contact)s OR (%(user)s <> '' AND user_id = %(user)s)
               OR ({_OF_NOBODY}))
    ORDER BY id
"""  # noqa: S608

_FIND_REFUSED = f"""
    SELECT {", ".join(_REFUSED)} FROM events_rejection
    WHERE id > %(after)s AND id <= %(upto)s AND ({_REFUSED_OWN}) ORDER BY id
"""  # noqa: S608


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("profile", (Contact, Erasure), _profile, _forget_others_words))
    register(Part("consents", (Consent, Subscription), _consents, _erase_consents))
    register(Part("events", (Event, IdempotentReply), _events, _erase_events))
    register(Part("refused_events", (Rejection,), _refused, _erase_refused))
    register(Part("suppressions", (Suppression,), _suppressions, _erase_suppressions))


def _profile(person: Person) -> Iterator[Row]:
    yield from Contact.objects.filter(pk=person.contact_id).values(*_PROFILE)


def _consents(person: Person) -> Iterator[Row]:
    yield from Consent.objects.filter(contact=person.contact_id).values(*_CONSENT)


def _events(person: Person) -> Iterator[Row]:
    # What is somebody else's and names them is somebody else's to see.
    sweep = Sweep("find", "events_event", _FIND_EVENTS)
    for *plain, payload, metadata in found_in_windows(sweep, _values(person)):
        row = dict(zip(_EVENT, plain, strict=True))
        yield {**row, "payload": json.loads(payload), "metadata": json.loads(metadata)}


def _refused(person: Person) -> Iterator[Row]:
    sweep = Sweep("find", "events_rejection", _FIND_REFUSED)
    for values in found_in_windows(sweep, _values(person)):
        row = dict(zip(_REFUSED, values, strict=True))
        yield row | {name: json.loads(row[name] or "null") for name in ("problems", "body")}


def _suppressions(person: Person) -> Iterator[Row]:
    rows = Suppression.objects.filter(address_hash__in=person.hashes)
    yield from rows.values(
        "created_at", "scope", "reason", "source", "evidence", "beneath", "expires_at"
    )


def _forget_others_words(person: Person) -> None:
    """What others' profiles and the admin's log say of them; their own row is empty already."""
    kind = ContentType.objects.get_for_model(Contact).pk
    _sweep(person, "profiles", "contacts_contact", _REDACT_PROFILES)
    _sweep(person, "log", "django_admin_log", _REDACT_LOG, kind=kind)


def _erase_consents(person: Person) -> None:
    Consent.objects.filter(contact=person.contact_id).delete()
    Subscription.objects.filter(contact=person.contact_id).delete()
    _sweep(person, "consents", "contacts_consent", _REDACT_CONSENTS)


def _erase_events(person: Person) -> None:
    _sweep(person, "events", "events_event", _EMPTY_OWN)
    _sweep(person, "others-events", "events_event", _REDACT_OTHERS)
    _sweep(person, "replies", "events_idempotentreply", _DELETE_REPLIES)


def _erase_refused(person: Person) -> None:
    _sweep(person, "refused", "events_rejection", _DELETE_REFUSED)
    _sweep(person, "others-refused", "events_rejection", _REDACT_REFUSED)


def _erase_suppressions(person: Person) -> None:
    # The hash stays: it is what keeps the address from being mailed when it comes in again.
    rows = list(Suppression.objects.filter(address_hash__in=person.hashes))
    for row in rows:
        row.forget()
    Suppression.objects.bulk_update(rows, ["email", "evidence", "beneath"])
    _sweep(person, "suppressions", "suppression_suppression", _REDACT_SUPPRESSIONS)


def _sweep(person: Person, name: str, table: str, statement: str, **more: Any) -> None:
    in_windows(person, Sweep(name, table, statement), {**_values(person), **more})


def _values(person: Person) -> dict[str, Any]:
    return {
        "contact": person.contact_id,
        "user": person.user_id,
        **person.spelt,
        "own": person.own_pattern,
        "until": person.until,
        "key": settings.ADDRESS_HASH_KEY,
    }
