"""Finding or making the person behind an event, and keeping what people said."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from common.addresses import Address, InvalidAddress, parse_address
from common.postgres import array, lock_names
from common.rows import insert_rows, new_row, rows_of
from contacts.conditions import lookup
from contacts.ledger import ConsentChange, record_consents
from contacts.models import Contact, Subscription, Topic
from contacts.states import ConsentState

_MAX_NAME = 200
_MAX_REGION = 40
_MAX_TRAIT = 1_000
_MOST_ATTRIBUTES = 200
_ALL = "*"
_HAVE_PLACES = frozenset({"email", "name", "region"})
# Person by person: of a list of people a planner that has not counted the subscriptions yet expects
# all of them, and reads them all.
_RECIPIENTS = """
    SELECT c.id, c.email, c.email_normalized, c.is_active, c.region, c.may_track,
           c.objected_at IS NOT NULL,
           coalesce(c.paused_until > statement_timestamp(), false), c.weekly_limit,
           s.states
    FROM contacts_contact AS c CROSS JOIN LATERAL (
        SELECT array_agg(ARRAY[topic_id::text, state]) AS states
        FROM contacts_subscription WHERE contact_id = c.id AND %s) AS s
    WHERE c.id = ANY(%s::bigint[])
"""
_LOCKED = """
    SELECT * FROM contacts_contact WHERE user_id = ANY(%s::text[])
       OR email_normalized = ANY(%s::text[])
    ORDER BY id FOR NO KEY UPDATE
"""
_WRITTEN = ("user_id", "email", "email_normalized", "name", "region", "attributes")


@dataclass(frozen=True, slots=True)
class Identity:
    """What one event says about its person."""

    user_id: str
    address: Address | None
    profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[bytes]:
        """What the person is found by, for locking."""
        names = [f"user:{self.user_id}"] if self.user_id else []
        if self.address is not None:
            names.append(f"email:{self.address.normalized}")
        return [name.encode() for name in names]

    @property
    def is_empty(self) -> bool:
        return not self.user_id and self.address is None


def identify(
    facts: Mapping[str, Any],
    *,
    user_id_paths: Iterable[str],
    email_paths: Iterable[str],
    profile_paths: Mapping[str, Iterable[str]],
) -> Identity:
    """Read the person out of an event's facts; the first path that holds a usable value wins.
    The profile's `*` takes the plain values of the objects at its paths under their own names.

    A malformed address is passed over, not an error: the event is kept and its mail is skipped
    with "no address".
    """
    user_id = next(filter(None, (_as_text(lookup(facts, path)) for path in user_id_paths)), "")
    address = next(filter(None, (_as_address(lookup(facts, path)) for path in email_paths)), None)
    profile: dict[str, Any] = {}
    for name, paths in profile_paths.items():
        found = (value for value in (lookup(facts, path) for path in paths) if value is not None)
        if name == _ALL:
            profile |= {key: v for values in found for key, v in _plain_values(values).items()}
        elif (value := next(found, None)) is not None:
            profile[name] = value
    return Identity(user_id, address, profile)


def _plain_values(values: Any) -> dict[str, Any]:
    """The texts, numbers and truths of an object, without what has a place of its own."""
    if not isinstance(values, dict):
        return {}
    return {
        key: value
        for key, value in values.items()
        if key not in _HAVE_PLACES
        and isinstance(value, str | int | float)
        and len(str(value)) <= _MAX_TRAIT
    }


def resolve_contacts(identities: Sequence[Identity]) -> list[Contact]:
    """The contact of each identity, in order, created or updated as needed, row-locked.

    Must run inside a transaction. Rules, in this order: the user id finds the contact; else the
    address does; else one is made. A contact found by address that has no user id gets this one.
    An address that belongs to somebody else is never taken from them. The number of statements
    does not depend on the size of the batch.
    """
    # Two batches that speak of the same new person take turns here, instead of meeting in the
    # unique indexes in an order that makes them wait for each other.
    lock_names((name for identity in identities for name in identity.names), shared=False)
    for _attempt in range(5):
        people = _People(_locked(identities))
        contacts = [people.resolve(identity) for identity in identities]
        is_saved = _save(people.changed)
        if is_saved and not people.new:
            return contacts
        # An address that was given up just now is free for the next. Somebody else may have made
        # the same person meanwhile: then ours is left out here, and the next look finds theirs.
        new = sorted(people.new, key=lambda c: (c.email_normalized or "", c.user_id or ""))
        insert_rows(new, ignore_conflicts=True)
    raise RuntimeError("contacts kept changing while they were being resolved")


class _People:
    """The contacts of one batch, found by user id or address; a stand-in for the two unique
    indexes, so that the second event of a new person meets the person the first one made."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        self.by_user_id = {}
        self.by_email = {}
        self.new: list[Contact] = []
        self.changed: dict[int, Contact] = {}
        for contact in contacts:
            self._index(contact)

    by_user_id: dict[str, Contact]
    by_email: dict[str, Contact]

    def resolve(self, identity: Identity) -> Contact:
        contact = self._find(identity)
        if contact is None:
            contact = new_row(Contact, user_id=identity.user_id or None)
            self.new.append(contact)
        if self._update(contact, identity) and contact.pk is not None:
            self.changed[contact.pk] = contact
        self._index(contact)
        return contact

    def _find(self, identity: Identity) -> Contact | None:
        known = self.by_user_id.get(identity.user_id) if identity.user_id else None
        if known is None and identity.address is not None:
            known = self.by_email.get(identity.address.normalized)
        return known

    def _update(self, contact: Contact, identity: Identity) -> bool:
        before = (*_told(contact), dict(contact.attributes))
        if identity.user_id and contact.user_id is None:
            contact.user_id = identity.user_id
        if identity.user_id and contact.user_id != identity.user_id:
            # Somebody else who uses the same mailbox: mailed there, but not to rename its owner.
            return False
        address = identity.address
        if address is not None and self.by_email.get(address.normalized, contact) is contact:
            self.by_email.pop(contact.email_normalized or "", None)
            contact.email, contact.email_normalized = address.email, address.normalized
        for name, value in identity.profile.items():
            if name == "name":
                contact.name = str(value)[:_MAX_NAME]
            elif name == "region":
                contact.region = str(value)[:_MAX_REGION]
            elif name in contact.attributes or len(contact.attributes) < _MOST_ATTRIBUTES:
                contact.attributes[name] = value
        return before != (*_told(contact), contact.attributes)

    def _index(self, contact: Contact) -> None:
        if contact.user_id:
            self.by_user_id[contact.user_id] = contact
        if contact.email_normalized:
            self.by_email[contact.email_normalized] = contact


def _told(contact: Contact) -> tuple[str | None, ...]:
    return contact.user_id, contact.email, contact.name, contact.region


def _locked(identities: Sequence[Identity]) -> list[Contact]:
    user_ids = {i.user_id for i in identities if i.user_id}
    emails = {i.address.normalized for i in identities if i.address is not None}
    return rows_of(Contact, _LOCKED, [array(user_ids), array(emails)])


def _save(changed: Mapping[int, Contact]) -> bool:
    """Write the changed contacts; False when an address was taken in this very moment."""
    if not changed:
        return True
    for contact in changed.values():
        contact.updated_at = Now()
    try:
        with transaction.atomic():
            Contact.objects.bulk_update(
                [changed[pk] for pk in sorted(changed)],
                [*_WRITTEN, "updated_at"],
            )
    except IntegrityError:
        return False
    return True


def record_consent(
    contact: Contact, topic: Topic, state: ConsentState, *, source: str, evidence: str = ""
) -> None:
    """Append what one person said about one topic to the ledger."""
    record_consents([ConsentChange(contact, topic, state, source, evidence)])


def subscription_states(contact_ids: Iterable[int]) -> dict[tuple[int, int], str]:
    """(contact id, topic id) → granted, withdrawn or pending, where anything is on record. One
    query."""
    rows = Subscription.objects.filter(contact_id__in=list(contact_ids))
    return {(c, t): state for c, t, state in rows.values_list("contact_id", "topic_id", "state")}


def people_at(addresses: Collection[str]) -> dict[str, int]:
    """Normalized address → id of the contact who has it now. One query, none for no address."""
    if not addresses:
        return {}
    rows = Contact.objects.filter(email_normalized__in=list(addresses))
    return {address or "": pk for address, pk in rows.values_list("email_normalized", "pk")}


@dataclass(frozen=True, slots=True)
class Recipient:
    """What has to be known of a person to decide whether a mail may go out, and where to."""

    email: str
    email_normalized: str | None
    is_active: bool
    region: str
    subscriptions: Mapping[int, str]
    """By topic id: granted, withdrawn or pending, where anything is on record and was asked for."""
    may_track: bool = False
    """Whether they agreed that opens and clicks are recorded."""
    has_objected: bool = False
    """To any marketing mail, at whatever address."""
    is_paused: bool = False
    weekly_limit: int | None = None
    """Marketing mails in seven days, where they want no more."""


def recipients(contact_ids: Iterable[int], *, subscriptions: bool) -> dict[int, Recipient]:
    """The people with these ids, with what they said about topics if that is wanted. One query."""
    with connection.cursor() as cursor:
        cursor.execute(_RECIPIENTS, [subscriptions, array(contact_ids)])
        rows = cursor.fetchall()
    return {
        pk: Recipient(
            email=email,
            email_normalized=normalized,
            is_active=is_active,
            region=region,
            subscriptions={int(topic_id): state for topic_id, state in said or ()},
            may_track=may_track,
            has_objected=objected,
            is_paused=paused,
            weekly_limit=limit,
        )
        for pk, email, normalized, is_active, region, may_track, objected, paused, limit, said in (
            rows
        )
    }


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return text if len(text) <= 200 else ""


def _as_address(value: Any) -> Address | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_address(value)
    except InvalidAddress:
        return None
