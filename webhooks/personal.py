"""What providers have told about a person: the receipts, as they came in; and what we told on."""

import json
from collections.abc import Iterator
from typing import Any

from contacts.dsar import (
    NotYet,
    Part,
    Person,
    Row,
    Sweep,
    found_in_windows,
    in_windows,
    register,
)
from contacts.spellings import naming
from delivery.models import Message
from webhooks.models import OutgoingDelivery, Receipt

_MOST_SHOWN = 20_000
"""Bytes of a receipt in somebody's copy."""

_NAMES_THEM = f"""
    ({naming("encode(body, 'escape')")} OR {naming("error")}
     OR translate(encode(body, 'escape'), E'\\n\\r', '') LIKE ANY(%(base64)s)
     OR EXISTS (SELECT FROM jsonb_array_elements(outcome) AS told
                WHERE told ->> 'message' = ANY(%(messages)s)))
"""

_FIND = f"""
    SELECT received_at, provider, outcome, body FROM webhooks_receipt
    WHERE id > %(after)s AND id <= %(upto)s AND {_NAMES_THEM} ORDER BY id
"""  # noqa: S608 - constants of this module

# A receipt may tell of many people. Once it is applied, what it told is in their rows and nobody
# needs its words. Until then it may be somebody's complaint: it is returned, to be looked at again.
_EMPTY = f"""
    WITH named AS MATERIALIZED (
        SELECT id, state FROM webhooks_receipt
        WHERE id > %(after)s AND id <= %(upto)s AND {_NAMES_THEM}
    ), emptied AS (
        UPDATE webhooks_receipt AS r SET body = '', error = ''
        FROM named WHERE r.id = named.id AND r.state = 'applied'
    ), buried AS (
        UPDATE webhooks_receipt AS r SET body = '', error = 'erased'
        FROM named WHERE r.id = named.id AND r.state = 'dead'
    )
    SELECT id FROM named WHERE state NOT IN ('applied', 'dead')
"""  # noqa: S608


def register_parts() -> None:
    """Tell `contacts.dsar` about all of it."""
    register(Part("receipts", (Receipt,), _receipts, _erase))
    register(Part("outgoing_webhooks", (OutgoingDelivery,), _told_onwards, _forget_told))


def _told_onwards(person: Person) -> Iterator[Row]:
    theirs = OutgoingDelivery.objects.filter(contact=person.contact_id).order_by("pk")
    for row in theirs.values("created_at", "endpoint__name", "type", "body", "state"):
        yield {**row, "body": _document(row["body"])}


def _forget_told(person: Person) -> None:
    OutgoingDelivery.objects.filter(contact=person.contact_id).delete()


def _receipts(person: Person) -> Iterator[Row]:
    values = _values(person)
    messages = set(values["messages"])
    for received_at, provider, outcome, body in found_in_windows(
        Sweep("find", "webhooks_receipt", _FIND), values
    ):
        told = json.loads(outcome)
        theirs = [entry for entry in told if entry.get("message") in messages]
        yield {
            "received_at": received_at,
            "provider": provider,
            "outcome": theirs,
            # What tells of others as well is theirs to see no more than the others' mail is.
            "body": _words(bytes(body)) if len(told) <= 1 else "",
        }


def _erase(person: Person) -> None:
    left = in_windows(person, Sweep("receipts", "webhooks_receipt", _EMPTY), _values(person))
    if left:
        raise NotYet(f"{left} receipts that name them are not applied yet")


def _values(person: Person) -> dict[str, Any]:
    theirs = Message.objects.filter(contact=person.contact_id).values_list("pk", flat=True)
    return {
        **person.spelt,
        "base64": person.base64,
        "messages": [str(pk) for pk in theirs],
    }


def _words(body: bytes) -> Any:
    text = body[:_MOST_SHOWN].decode(errors="replace")
    return _document(text) if len(body) <= _MOST_SHOWN else text


def _document(text: str) -> Any:
    """As JSON where it is that, so that it does not stand in the copy as text within text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
