"""What we hold of one person: a copy of it (GDPR 15, 20), and its erasure (GDPR 17).

Each app registers the parts it holds, so that what is above can be asked from here; a test fails
when a model that knows people belongs to no part. Erasing is steps that may each be run again:
whoever finds an open `Erasure` goes on, and the contact's own row, by which all is found, is last.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.db.models.functions import Now

from common.addresses import Address, address_hash
from contacts.models import Contact, Erasure
from suppression.services import SuppressionRequest, suppress_addresses
from suppression.states import ALL, SuppressionReason

logger = logging.getLogger(__name__)

_WINDOW = 5_000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Person:
    """By what a person is found."""

    contact_id: int
    user_id: str
    addresses: frozenset[str]
    """As written and normalised."""

    @property
    def hashes(self) -> list[bytes]:
        """Of the addresses, as suppressions know them."""
        return [address_hash(address) for address in sorted(self.addresses)]

    @cached_property
    def pattern(self) -> str:
        """A regular expression of PostgreSQL (for `~*`) that finds an address in any text, as it
        is or percent-encoded, and never as the tail or head of somebody else's."""
        if not self.addresses:
            return "(?!)"
        either = "|".join(_spelt(address) for address in sorted(self.addresses))
        before = r"((?<![a-z0-9._%+-])|(?<=%[0-9a-f][0-9a-f]))"
        return rf"{before}({either})(?![a-z0-9-]|\.[a-z0-9])"

    @cached_property
    def own_pattern(self) -> str:
        """The same for what is the person's own row anyway: their addresses and user id, wherever
        in a word they stand."""
        names = [*sorted(self.addresses), *filter(None, [self.user_id])]
        return "|".join(_spelt(name) for name in names) or "(?!)"


@dataclass(frozen=True, slots=True)
class Part:
    """Some of what we hold, under a name: which models, how it is copied, how it is erased."""

    name: str
    models: tuple[type[Model], ...]
    copy: Callable[[Person], Iterable[Row]]
    erase: Callable[[Person], object]
    addresses: Callable[[int], Iterable[str]] | None = None
    """Of the contact with this id: addresses that only this part still knows. Such parts are
    erased last, so that an erasure which was cut short finds the same again."""


_parts: dict[str, Part] = {}


def register(part: Part) -> None:
    """Called in `AppConfig.ready`."""
    _parts[part.name] = part


def parts() -> list[Part]:
    """All that is registered, by name."""
    return [_parts[name] for name in sorted(_parts)]


def personal_copy(contact: Contact) -> dict[str, list[Row]]:
    """Everything we hold of the person, by part."""
    person = _person(contact)
    return {part.name: list(part.copy(person)) for part in parts()}


def begin_erasure(contact: Contact, *, source: str) -> Erasure:
    """Stop all mail to the person and note that everything is to be erased. When it returns, no
    hand-over whose transaction starts later ignores it. Idempotent."""
    with transaction.atomic():
        suppress_addresses(
            [
                SuppressionRequest(Address(a, a), ALL, SuppressionReason.ERASURE, source)
                for a in [contact.email_normalized]
                if a
            ]
        )
        Contact.objects.filter(pk=contact.pk).update(is_active=False, updated_at=Now())
        erasure, _ = Erasure.objects.get_or_create(contact=contact, defaults={"source": source})
    return erasure


def continue_erasures(*, most: int = 10) -> int:
    """Go on with what is open; returns how many people are erased now. Run again, it changes
    nothing that is done."""
    open_ones = Erasure.objects.filter(finished_at=None).select_related("contact").order_by("pk")
    done = 0
    for erasure in open_ones[:most]:
        try:
            _erase(erasure)
            done += 1
        except Exception as error:  # noqa: BLE001 - one person's row must not stop the others'
            # Not the error's words: a database quotes what it stumbles over.
            facts = {"erasure": erasure.pk, "error": type(error).__name__}
            logger.error("erasure not finished, it is tried again", extra=facts)
    return done


def in_windows(table: str, statement: str, values: Mapping[str, Any], *, first: Any = -1) -> int:
    """Run a statement over a table's rows in the order of ids, a few thousand at a time, so that
    no lock and no statement lasts; returns the rows it touched. It names its window `%(after)s`,
    `%(upto)s`; `first` is below all ids."""
    name = connection.ops.quote_name(table)
    end = (
        f"SELECT id FROM (SELECT id FROM {name} WHERE id > %s ORDER BY id LIMIT {_WINDOW})"  # noqa: S608
        " AS ahead ORDER BY id DESC LIMIT 1"
    )
    touched, after = 0, first
    with connection.cursor() as cursor:
        while True:
            cursor.execute(end, [after])
            if (row := cursor.fetchone()) is None:
                return touched
            cursor.execute(statement, {**values, "after": after, "upto": row[0]})
            touched += cursor.rowcount
            after = row[0]


def _erase(erasure: Erasure) -> None:
    person = _person(erasure.contact)
    for part in sorted(parts(), key=lambda part: part.addresses is not None):
        part.erase(person)
    with transaction.atomic():
        Contact.objects.filter(pk=person.contact_id).update(
            user_id=None,
            email="",
            email_normalized=None,
            name="",
            attributes={},
            region="",
            locale="",
            may_track=False,
            objected_at=None,
            paused_until=None,
            weekly_limit=None,
            engaged_at=None,
            is_active=False,
            erased_at=Now(),
            updated_at=Now(),
        )
        Erasure.objects.filter(pk=erasure.pk).update(finished_at=Now())


def _person(contact: Contact) -> Person:
    addresses = {contact.email, contact.email_normalized or ""} - {""}
    for part in parts():
        if part.addresses is not None:
            addresses |= set(part.addresses(contact.pk)) - {""}
    return Person(contact.pk, contact.user_id or "", frozenset(addresses))


def _spelt(address: str) -> str:
    return "".join(
        c if c.isalnum() else f"({re.escape(c)}|%{ord(c):02x})" if c.isascii() else c
        for c in address.lower()
    )
