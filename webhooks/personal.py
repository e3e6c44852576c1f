"""What providers have told about a person: the receipts, as they came in."""

from collections.abc import Iterator

from django.db import connection

from contacts.dsar import Part, Person, Row, in_windows, register
from delivery.models import Message
from webhooks.models import OutgoingDelivery, Receipt

_FIND = """
    SELECT received_at, provider, outcome FROM webhooks_receipt
    WHERE encode(body, 'escape') ~* %s ORDER BY id LIMIT 10000
"""

_EMPTY = """
    UPDATE webhooks_receipt
    SET body = '', error = CASE WHEN state = 'applied' THEN '' ELSE 'erased' END,
        claimed_until = NULL, lease_owner = '',
        state = CASE WHEN state = 'applied' THEN state ELSE 'dead' END
    WHERE id > %(after)s AND id <= %(upto)s
          AND (encode(body, 'escape') ~* %(pattern)s OR error ~* %(pattern)s
               OR EXISTS (SELECT FROM jsonb_array_elements(outcome) AS told
                          WHERE told ->> 'message' = ANY(%(messages)s)))
"""


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("receipts", (Receipt,), _receipts, _erase))
    register(Part("outgoing_webhooks", (OutgoingDelivery,), _told_onwards, _forget_told))


def _told_onwards(person: Person) -> Iterator[Row]:
    theirs = OutgoingDelivery.objects.filter(contact=person.contact_id).order_by("pk")
    yield from theirs.values("endpoint__name", "type", "body", "state")


def _forget_told(person: Person) -> None:
    OutgoingDelivery.objects.filter(contact=person.contact_id).delete()


def _receipts(person: Person) -> Iterator[Row]:
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [person.pattern])
        for received_at, provider, outcome in cursor.fetchall():
            yield {"received_at": received_at, "provider": provider, "outcome": outcome}


def _erase(person: Person) -> None:
    theirs = Message.objects.filter(contact=person.contact_id).values_list("pk", flat=True)
    values = {"pattern": person.pattern, "messages": [str(pk) for pk in theirs]}
    in_windows("webhooks_receipt", _EMPTY, values)
