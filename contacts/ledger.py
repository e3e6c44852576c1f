"""The consent ledger, set-wise: one line per change, and the current state moved with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models.functions import Now

from common.addresses import address_hash
from contacts.models import Consent, Contact, Subscription, Topic
from contacts.states import ConsentState, Purpose
from suppression.services import lock_addresses

# An erasure that is just beginning is waited for, and then seen.
_KNOWN = """
    SELECT id FROM contacts_contact WHERE id = ANY(%s) AND erased_at IS NULL
    ORDER BY id FOR KEY SHARE
"""


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """What one person said about one topic, and how we know."""

    contact: Contact
    topic: Topic
    state: ConsentState
    source: str
    evidence: str = ""


def record_consents(changes: Sequence[ConsentChange]) -> None:
    """Append to the ledger and move the subscriptions with it. The number of statements does not
    depend on the number of changes; of two about the same topic the later one counts.

    Shares the address lock of the dispatcher: once this is committed, no hand-over whose
    transaction starts later ignores it. Of people who were erased nothing is written.
    """
    if not changes:
        return
    addresses = {change.contact.email_normalized for change in changes}
    with transaction.atomic():
        lock_addresses((address_hash(a) for a in addresses if a), shared=False)
        known = _known(change.contact.pk for change in changes)
        changes = [change for change in changes if change.contact.pk in known]
        latest = {(change.contact.pk, change.topic.pk): change for change in changes}
        Consent.objects.bulk_create(
            Consent(
                contact=change.contact,
                topic=change.topic,
                state=change.state,
                source=change.source,
                evidence=change.evidence,
            )
            for change in changes
        )
        Subscription.objects.bulk_create(
            [
                Subscription(contact=c.contact, topic=c.topic, state=c.state, at=Now())
                # In one order everywhere: two batches must not wait for each other's rows.
                for _, c in sorted(latest.items())
            ],
            update_conflicts=True,
            unique_fields=["contact", "topic"],
            update_fields=["state", "at"],
        )


@dataclass(frozen=True, slots=True)
class Objection:
    """Somebody wants no marketing mail at all any more, and how we know."""

    contact_id: int
    source: str
    evidence: str = ""


def record_objections(said: Sequence[Objection]) -> None:
    """Append to the ledger that these people want no marketing mail, and let it count for whatever
    address they have or will have. Once each, until it is lifted; not of those who are erased. The
    number of statements does not depend on how many.

    Inside the caller's transaction and under the locks of their addresses, as `record_consents`.
    """
    wanted = {objection.contact_id: objection for objection in reversed(said)}
    if not wanted:
        return
    people = Contact.objects.filter(
        pk__in=list(wanted), objected_at__isnull=True, erased_at__isnull=True
    )
    new = list(people.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
    if not new:
        return
    Consent.objects.bulk_create(
        Consent(
            contact_id=pk,
            purpose=Purpose.MARKETING,
            state=ConsentState.WITHDRAWN,
            source=wanted[pk].source,
            evidence=wanted[pk].evidence,
        )
        for pk in new
    )
    Contact.objects.filter(pk__in=new).update(objected_at=Now(), updated_at=Now())


def lift_objection(contact: Contact, *, source: str, evidence: str = "") -> None:
    """Append that this person does not object any more, because they have asked for a topic
    themselves. Which topics they get is for the caller to say. Does nothing where they have not
    objected; the contact is locked by the caller, and is changed."""
    if contact.objected_at is None:
        return
    Consent.objects.create(
        contact=contact,
        purpose=Purpose.MARKETING,
        state=ConsentState.GRANTED,
        source=source,
        evidence=evidence,
    )
    Contact.objects.filter(pk=contact.pk).update(objected_at=None, updated_at=Now())
    contact.objected_at = None


def record_tracking(
    contacts: Sequence[Contact], state: ConsentState, *, source: str, evidence: str = ""
) -> None:
    """Append what these people said about recording their opens and clicks, and act by it from
    the next mail that is rendered on. The number of statements does not depend on how many. Of
    people who were erased nothing is written."""
    if not contacts:
        return
    with transaction.atomic():
        known = _known(contact.pk for contact in contacts)
        contacts = [contact for contact in contacts if contact.pk in known]
        Consent.objects.bulk_create(
            Consent(
                contact=contact,
                purpose=Purpose.TRACKING,
                state=state,
                source=source,
                evidence=evidence,
            )
            for contact in contacts
        )
        people = Contact.objects.filter(pk__in=[contact.pk for contact in contacts])
        people.update(may_track=state == ConsentState.GRANTED, updated_at=Now())


def _known(contact_ids: Iterable[int]) -> set[int]:
    """Those of them who were not erased, and are not until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN, [sorted(set(contact_ids))])
        return {pk for (pk,) in cursor.fetchall()}
