"""What delivery holds of a person: messages with their data, and what was tried with them."""

from collections.abc import Iterator
from uuid import UUID

from contacts.dsar import Part, Person, Row, in_windows, register
from delivery.models import Attempt, Bounce, LookUp, Message, SandboxMail, Visit

_MESSAGE = (
    *("created_at", "email", "stream", "topic__key", "template_version__template__key"),
    *("origin_campaign", "origin_event_id", "state", "reason", "sent_at", "delivered_at"),
    *("opened_at", "clicked_at", "rejected_at", "bounced_at", "complained_at"),
    *("unsubscribed_at", "context"),
)

_DELETE_MAILS = """
    DELETE FROM delivery_sandboxmail
    WHERE id > %(after)s AND id <= %(upto)s AND to_email ~* %(pattern)s
"""


# What somebody else's mail said about them.
_REDACT_OTHERS = """
    UPDATE delivery_message
    SET context = regexp_replace(context::text, %(pattern)s, 'erased', 'gi')::jsonb,
        origin_event_id = regexp_replace(origin_event_id, %(pattern)s, 'erased', 'gi')
    WHERE id > %(after)s AND id <= %(upto)s
          AND concat_ws(' ', context, origin_event_id) ~* %(pattern)s
"""


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    models = (Message, Attempt, Bounce, LookUp, SandboxMail)
    register(Part("visits", (Visit,), _visits, _forget_visits))
    register(Part("messages", models, _messages, _erase, _addresses))


def _addresses(contact_id: int) -> set[str]:
    """Where mail of theirs has gone, before they moved too."""
    rows = Message.objects.filter(contact=contact_id)
    return {address for pair in rows.values_list("email", "email_normalized") for address in pair}


def _messages(person: Person) -> Iterator[Row]:
    theirs = Message.objects.filter(contact=person.contact_id).order_by("pk")
    yield from theirs.values(*_MESSAGE)


def _visits(person: Person) -> Iterator[Row]:
    """What they opened and clicked, and what was taken for a machine."""
    theirs = Visit.objects.filter(message__contact=person.contact_id).order_by("pk")
    yield from theirs.values("at", "message", "link__url", "actor", "reason")


def _forget_visits(person: Person) -> None:
    Visit.objects.filter(message__contact=person.contact_id).delete()


def _erase(person: Person) -> None:
    theirs = Message.objects.filter(contact=person.contact_id)
    SandboxMail.objects.filter(message__in=theirs).delete()
    in_windows("delivery_sandboxmail", _DELETE_MAILS, {"pattern": person.pattern})
    Attempt.objects.filter(message__in=theirs).update(detail="", request="", address_hash=None)
    Bounce.objects.filter(message__in=theirs).update(detail="", email="", email_normalized="")
    theirs.filter(origin_event_id__iregex=person.own_pattern).update(origin_event_id="")
    in_windows("delivery_message", _REDACT_OTHERS, {"pattern": person.pattern}, first=UUID(int=0))
    theirs.update(email="", email_normalized="", context={}, detail="")
