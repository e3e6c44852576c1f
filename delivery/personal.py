"""What delivery holds of a person: messages with their data, and what was tried with them."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from contacts.dsar import Part, Person, Row, Sweep, in_windows, register
from contacts.spellings import naming
from delivery.models import Attempt, Bounce, Link, LookUp, Message, SandboxMail, Visit

_MESSAGE = (
    *("created_at", "email", "stream", "topic__key", "template_version__template__key"),
    *("origin_campaign", "origin_event_id", "state", "reason", "sent_at", "delivered_at"),
    *("opened_at", "clicked_at", "rejected_at", "bounced_at", "complained_at"),
    *("unsubscribed_at", "context"),
)

_DELETE_MAILS = f"""
    DELETE FROM delivery_sandboxmail
    WHERE id > %(after)s AND id <= %(upto)s AND {naming("to_email")}
"""  # noqa: S608


# What somebody else's mail said about them.
_REDACT_OTHERS = f"""
    UPDATE delivery_message
    SET context = regexp_replace(context::text, %(pattern)s, 'erased', 'gi')::jsonb,
        origin_event_id = regexp_replace(origin_event_id, %(pattern)s, 'erased', 'gi')
    WHERE id > %(after)s AND id <= %(upto)s
          AND {naming("concat_ws(' ', context, origin_event_id)")}
"""  # noqa: S608


# A destination that names them was made for a mail to them, or by them.
_REDACT_LINKS = f"""
    UPDATE delivery_link SET url = regexp_replace(url, %(pattern)s, 'erased', 'gi')
    WHERE id > %(after)s AND id <= %(upto)s AND {naming("url")}
"""  # noqa: S608

_NO_UUID = UUID(int=0)


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("visits", (Visit, Link), _visits, _forget_visits))
    register(Part("attempts", (Attempt, LookUp), _attempts, _forget_attempts))
    register(Part("bounces", (Bounce,), _bounces, _forget_bounces, _bounced_addresses))
    register(Part("messages", (Message, SandboxMail), _messages, _erase, _addresses))


def _addresses(contact_id: int) -> set[str]:
    """Where mail of theirs has gone, before they moved too."""
    rows = Message.objects.filter(contact=contact_id)
    return {address for pair in rows.values_list("email", "email_normalized") for address in pair}


def _bounced_addresses(contact_id: int) -> set[str]:
    """The same of mail whose address was changed after it came back."""
    rows = Bounce.objects.filter(message__contact=contact_id)
    return {address for pair in rows.values_list("email", "email_normalized") for address in pair}


def _attempts(person: Person) -> Iterator[Row]:
    theirs = Attempt.objects.filter(message__contact=person.contact_id).order_by("pk")
    yield from theirs.values("at", "message", "number", "provider__key", "verdict", "detail")


def _forget_attempts(person: Person) -> None:
    Attempt.objects.filter(message__contact=person.contact_id).update(
        detail="", request="", address_hash=None
    )
    LookUp.objects.filter(message__contact=person.contact_id).update(detail="")


def _bounces(person: Person) -> Iterator[Row]:
    theirs = Bounce.objects.filter(message__contact=person.contact_id).order_by("pk")
    yield from theirs.values(
        "at", "last_at", "message", "bounce_class", "source", "email", "detail"
    )


def _forget_bounces(person: Person) -> None:
    theirs = Bounce.objects.filter(message__contact=person.contact_id)
    theirs.update(detail="", email="", email_normalized="")


def _messages(person: Person) -> Iterator[Row]:
    theirs = Message.objects.filter(contact=person.contact_id).order_by("pk")
    yield from theirs.values(*_MESSAGE)


def _visits(person: Person) -> Iterator[Row]:
    """What they opened and clicked, and what was taken for a machine."""
    theirs = Visit.objects.filter(message__contact=person.contact_id).order_by("pk")
    yield from theirs.values("at", "message", "link__url", "actor", "reason")


def _forget_visits(person: Person) -> None:
    Visit.objects.filter(message__contact=person.contact_id).delete()
    _sweep(person, "links", "delivery_link", _REDACT_LINKS, first=_NO_UUID)


def _erase(person: Person) -> None:
    theirs = Message.objects.filter(contact=person.contact_id)
    SandboxMail.objects.filter(message__in=theirs).delete()
    _sweep(person, "sandbox", "delivery_sandboxmail", _DELETE_MAILS)
    theirs.filter(origin_event_id__iregex=person.own_pattern).update(origin_event_id="")
    theirs.update(email="", email_normalized="", context={}, detail="")
    _sweep(person, "others-messages", "delivery_message", _REDACT_OTHERS, first=_NO_UUID)


def _sweep(person: Person, name: str, table: str, statement: str, *, first: Any = -1) -> None:
    in_windows(person, Sweep(name, table, statement, first), person.spelt)
