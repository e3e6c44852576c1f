"""The copy of what we hold of a person, put together by a worker: it reads whole tables, which no
page waits for. It is kept for seven days.
"""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q
from django.db.models.functions import Now

from common.clock import now
from contacts.dsar import Part, Person, Row, Sweep, in_windows, parts, person_of, register
from contacts.models import Contact, PersonalCopy
from contacts.spellings import naming

logger = logging.getLogger(__name__)

KEPT = timedelta(days=7)
FRESH = timedelta(days=1)
"""Asked for again within it, the same is given."""

# Taking it puts off the next try, which is lease enough: one that is lost is tried again then.
_CLAIM = """
    UPDATE contacts_personalcopy
    SET tries = tries + 1, next_at = statement_timestamp() + interval '15 minutes'
    WHERE id = (SELECT id FROM contacts_personalcopy
                WHERE built_at IS NULL AND next_at <= statement_timestamp()
                ORDER BY next_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *
"""

# Others' copies that quote somebody who is erased are made again when they are asked for.
_DELETE_OTHERS = f"""
    DELETE FROM contacts_personalcopy
    WHERE id > %(after)s AND id <= %(upto)s AND {naming("encode(body, 'escape')")}
"""  # noqa: S608


def register_part() -> None:
    """Tell `contacts.dsar` about the copies themselves."""
    register(Part("copies", (PersonalCopy,), _copies, _erase))


def ask_for_copy(contact: Contact, *, source: str) -> PersonalCopy:
    """Have the copy made, unless one is being made or is fresh; returns it, ready or not. Of
    somebody who was erased it stays empty. Idempotent."""
    copy, _ = PersonalCopy.objects.get_or_create(contact=contact, defaults={"source": source})
    outdated = Q(built_at__lt=now() - FRESH) | Q(expires_at__lte=Now())
    renewed = PersonalCopy.objects.filter(outdated, pk=copy.pk).update(
        source=source,
        requested_at=Now(),
        next_at=Now(),
        tries=0,
        last_error="",
        built_at=None,
        expires_at=None,
        body=b"",
    )
    if renewed:
        copy.refresh_from_db()
    return copy


def ready_copy(contact: Contact) -> PersonalCopy | None:
    """The copy, if it is there and its time is not over."""
    return PersonalCopy.objects.filter(contact=contact, expires_at__gt=Now()).first()


def make_copies(*, most: int = 10) -> int:
    """Make the copies that are waited for and empty those whose time is over; returns how many
    were made. What failed is tried again, at growing distances."""
    PersonalCopy.objects.filter(expires_at__lte=Now()).exclude(body=b"").update(body=b"")
    made = 0
    for _ in range(most):
        copy = next(iter(PersonalCopy.objects.raw(_CLAIM)), None)
        if copy is None:
            break
        row = PersonalCopy.objects.filter(pk=copy.pk, built_at=None, contact__erased_at=None)
        try:
            body = "".join(_document(copy.contact)).encode()
            made += row.update(body=body, built_at=Now(), expires_at=now() + KEPT, last_error="")
        except Exception as error:  # noqa: BLE001 - one person's row must not stop the others'
            facts = {"copy": copy.pk, "error": type(error).__name__}
            logger.error("copy not made, it is tried again", extra=facts)
            later = now() + timedelta(minutes=min(copy.tries**2, 360))
            row.update(last_error=type(error).__name__, next_at=later)
    return made


def _document(contact: Contact) -> Iterator[str]:
    """JSON: an object of one array for each part, a row to a line."""
    person = person_of(contact)
    before = "{\n"
    for part in parts():
        yield f"{before}{json.dumps(part.name)}: ["
        between = "\n"
        for row in part.copy(person):
            yield between + json.dumps(dict(row), cls=DjangoJSONEncoder, ensure_ascii=False)
            between = ",\n"
        yield "]"
        before = ",\n"
    yield "\n}\n"


def _copies(person: Person) -> Iterator[Row]:
    theirs = PersonalCopy.objects.filter(contact=person.contact_id)
    yield from theirs.values("requested_at", "source")


def _erase(person: Person) -> None:
    PersonalCopy.objects.filter(contact=person.contact_id).delete()
    sweep = Sweep("copies", "contacts_personalcopy", _DELETE_OTHERS)
    in_windows(person, sweep, person.spelt)
