"""What we hold of one person: a copy of it (GDPR 15, 20), and its erasure (GDPR 17).

Each app registers the parts it holds, so that what is above can be asked from here; a test fails
when a model that knows people belongs to no part.

The contact loses its names at once, so that nothing that comes in later is theirs; the open
`Erasure` knows them until the last part is done. Erasing is steps that may each be run again, and
whoever finds an open one goes on where it was left.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.db.models.functions import Now

from common.addresses import Address, InvalidAddress, address_hash, parse_address
from contacts.models import Consent, Contact, Erasure, PersonalCopy, Subscription
from contacts.spellings import base64_of, loose_pattern_of, own_pattern_of, pattern_of
from suppression.services import SuppressionRequest, lock_addresses, suppress_addresses
from suppression.states import ALL, SuppressionReason

logger = logging.getLogger(__name__)

_WINDOW = 5_000

# Taking it puts off the next try, which is lease enough: one that is lost is tried again then.
_CLAIM = """
    UPDATE contacts_erasure
    SET tries = tries + 1, tried_at = statement_timestamp(),
        next_at = statement_timestamp() + interval '15 minutes'
    WHERE id = (SELECT id FROM contacts_erasure
                WHERE finished_at IS NULL AND next_at <= statement_timestamp()
                ORDER BY next_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *
"""

_FAILED = """
    UPDATE contacts_erasure
    SET last_error = %s,
        next_at = statement_timestamp() + LEAST(tries * tries, 360) * interval '1 minute'
    WHERE id = %s
"""

Row = Mapping[str, Any]


class NotYet(Exception):
    """Something has to be done first, by others; then the erasure goes on. Its text names
    nobody."""


@dataclass(frozen=True)
class Person:
    """By what a person is found."""

    contact_id: int
    user_id: str
    addresses: frozenset[str]
    """As written and normalised."""
    until: datetime | None = None
    """What was posted later is somebody's who has come again."""
    marks: dict[str, Any] = field(default_factory=dict, compare=False)
    """Sweep → the id up to which it is done."""
    keep_marks: Callable[[dict[str, Any]], object] = field(default=lambda _marks: None)

    @property
    def hashes(self) -> list[bytes]:
        """Of the addresses, as suppressions know them."""
        return [address_hash(address) for address in sorted(self.addresses)]

    @cached_property
    def pattern(self) -> str:
        """See `contacts.spellings.pattern_of`."""
        return pattern_of(self.addresses)

    @cached_property
    def loose(self) -> str:
        """See `contacts.spellings.loose_pattern_of`."""
        return loose_pattern_of(self.addresses)

    @property
    def spelt(self) -> dict[str, str]:
        """The parameters of `contacts.spellings.naming`."""
        return {"pattern": self.pattern, "loose": self.loose}

    @cached_property
    def own_pattern(self) -> str:
        """See `contacts.spellings.own_pattern_of`."""
        return own_pattern_of(self.addresses, self.user_id)

    @cached_property
    def base64(self) -> list[str]:
        """See `contacts.spellings.base64_of`."""
        return base64_of(self.addresses)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of what we hold, under a name: which models, how it is copied, how it is erased."""

    name: str
    models: tuple[type[Model], ...]
    copy: Callable[[Person], Iterable[Row]]
    erase: Callable[[Person], object]
    addresses: Callable[[int], Iterable[str]] | None = None
    """Of the contact with this id: addresses that only this part still knows."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A statement that goes through a whole table. It names its window `%(after)s`, `%(upto)s`;
    `first` is below all ids. Rows that it returns are what has to be looked at again."""

    name: str
    table: str
    statement: str
    first: Any = -1


_parts: dict[str, Part] = {}


def register(part: Part) -> None:
    """Called in `AppConfig.ready`."""
    _parts[part.name] = part


def parts() -> list[Part]:
    """All that is registered, by name."""
    return [_parts[name] for name in sorted(_parts)]


def person_of(contact: Contact) -> Person:
    """By what the person behind a contact is found."""
    return Person(contact.pk, contact.user_id or "", frozenset(_addresses(contact)))


def personal_copy(contact: Contact) -> dict[str, list[Row]]:
    """Everything we hold of the person, by part. It reads whole tables: see `contacts.copies`."""
    person = person_of(contact)
    return {part.name: list(part.copy(person)) for part in parts()}


def begin_erasure(contact: Contact, *, source: str, reason: str = "") -> Erasure:
    """Stop all mail to the person, at every address we know to be theirs, take the contact's names
    away, and note that everything is to be erased. When it returns, no hand-over whose transaction
    starts later ignores it, and nothing that comes in is theirs. Idempotent."""
    locked: set[bytes] = set()
    while True:
        with transaction.atomic():
            lock_addresses(locked, shared=False)
            row = Contact.objects.select_for_update().get(pk=contact.pk)
            known = Erasure.objects.filter(contact=row).first()
            if known is not None:
                return known
            addresses = _addresses(row)
            needed = {address_hash(_parsed(address).normalized) for address in addresses}
            # Addresses are locked before rows everywhere, so one that has come in meanwhile
            # means beginning again.
            if needed <= locked:
                return _begin(row, addresses, source, reason)
            locked = needed


def _begin(contact: Contact, addresses: set[str], source: str, reason: str) -> Erasure:
    parsed = {_parsed(address).normalized: _parsed(address) for address in sorted(addresses)}
    suppress_addresses(
        [
            SuppressionRequest(address, ALL, SuppressionReason.ERASURE, source)
            for address in parsed.values()
        ]
    )
    erasure = Erasure.objects.create(
        contact=contact,
        source=source,
        reason=reason,
        user_id=contact.user_id or "",
        addresses=sorted(addresses | parsed.keys()),
    )
    # What they agreed to is over now, not when its part is erased.
    Consent.objects.filter(contact=contact).delete()
    Subscription.objects.filter(contact=contact).delete()
    PersonalCopy.objects.filter(contact=contact).delete()
    Contact.objects.filter(pk=contact.pk).update(
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
    return erasure


def continue_erasures(*, most: int = 10) -> int:
    """Go on with what is open and due; returns how many people are erased now. Run again, it
    changes nothing that is done. What failed is tried again, at growing distances."""
    done = 0
    for _ in range(most):
        erasure = next(iter(Erasure.objects.raw(_CLAIM)), None)
        if erasure is None:
            break
        try:
            _erase(erasure)
            done += 1
        except NotYet as waiting:
            _put_off(erasure, str(waiting))
        except Exception as error:  # noqa: BLE001 - one person's row must not stop the others'
            # Not the error's words: a database quotes what it stumbles over.
            facts = {"erasure": erasure.pk, "error": type(error).__name__}
            logger.error("erasure not finished, it is tried again", extra=facts)
            _put_off(erasure, type(error).__name__)
    return done


def in_windows(person: Person, sweep: Sweep, values: Mapping[str, Any]) -> int:
    """Run a sweep in the order of ids, a few thousand at a time, so that no lock and no statement
    lasts; returns how many rows have to be looked at again. It begins behind what is done, and
    what has to be looked at again is not."""
    left, after = 0, person.marks.get(sweep.name, sweep.first)
    with connection.cursor() as cursor:
        for upto in _window_ends(sweep.table, after):
            cursor.execute(sweep.statement, {**values, "after": after, "upto": upto})
            left += cursor.rowcount if cursor.description else 0
            after = upto
            if not left:
                person.marks[sweep.name] = after if isinstance(after, int) else str(after)
                person.keep_marks(person.marks)
    return left


def found_in_windows(sweep: Sweep, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What a sweep returns, window by window."""
    after = sweep.first
    with connection.cursor() as cursor:
        for upto in _window_ends(sweep.table, after):
            cursor.execute(sweep.statement, {**values, "after": after, "upto": upto})
            yield from cursor.fetchall()
            after = upto


def _window_ends(table: str, after: Any) -> Iterator[Any]:
    name = connection.ops.quote_name(table)
    end = (
        f"SELECT id FROM (SELECT id FROM {name} WHERE id > %s ORDER BY id LIMIT {_WINDOW})"  # noqa: S608
        " AS ahead ORDER BY id DESC LIMIT 1"
    )
    with connection.cursor() as cursor:
        while True:
            cursor.execute(end, [after])
            if (row := cursor.fetchone()) is None:
                return
            yield (after := row[0])


def _erase(erasure: Erasure) -> None:
    row = Erasure.objects.filter(pk=erasure.pk)
    person = Person(
        erasure.contact_id,
        erasure.user_id,
        frozenset(erasure.addresses),
        until=erasure.requested_at,
        marks=dict(erasure.marks),
        keep_marks=lambda marks: row.update(marks=marks),
    )
    # Twice: workers that had the contact in hand when it began may have written a row since.
    # The second time the sweeps find only what is new.
    for _ in range(2):
        for part in parts():
            part.erase(person)
    row.update(
        finished_at=Now(),
        user_id="",
        addresses=[],
        reason="",
        marks={},
        last_error="",
        next_at=None,
    )


def _put_off(erasure: Erasure, error: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FAILED, [error[:200], erasure.pk])


def _addresses(contact: Contact) -> set[str]:
    """Every address that is this person's, now or before, and nobody else's today."""
    found = {contact.email, contact.email_normalized or ""}
    for part in parts():
        if part.addresses is not None:
            found |= set(part.addresses(contact.pk))
    found -= {""}
    normal = {_parsed(address).normalized for address in found}
    others = Contact.objects.exclude(pk=contact.pk).filter(email_normalized__in=normal)
    taken = set(others.values_list("email_normalized", flat=True))
    return {address for address in found if _parsed(address).normalized not in taken}


def _parsed(address: str) -> Address:
    try:
        return parse_address(address)
    except InvalidAddress:  # of a time with other rules
        return Address(address, address.lower())
