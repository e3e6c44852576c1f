"""A copy of one's data, and being forgotten: asked for on the page, proven by a fresh mail.

Whoever holds a forwarded mail may unsubscribe its owner, and that is all: what is shown or erased
here takes a link that went to the person's own mailbox in the last seven days.
"""

from datetime import timedelta
from enum import StrEnum

from django.db import transaction

from common.addresses import address_hash
from common.bell import ring
from common.clock import now
from contacts.copies import ask_for_copy, ready_copy
from contacts.dsar import begin_erasure
from contacts.models import Contact
from content.services import find_wording
from delivery.links import PERSONAL_DATA
from delivery.models import Message
from delivery.notices import once_a_day, write_notice
from delivery.states import Stream
from preferences.languages import page_language
from suppression.services import suppressions_of
from suppression.states import ALL

TEMPLATE = "personal_data"
VALID_FOR = timedelta(days=7)


class Wanted(StrEnum):
    """What somebody asks for."""

    EXPORT = "export"
    ERASE = "erase"


class Asked(StrEnum):
    """What came of asking for the link."""

    SENT = "sent"
    SENT_BEFORE = "sent_before"
    """Today, to the same address."""
    NOT_SENT = "not_sent"
    """No mail may go to them at all."""


def send_link(contact: Contact, wanted: Wanted) -> Asked:
    """Mail the person the link that proves it is them, to one address once a day."""
    address = contact.email_normalized
    if not address or not contact.is_active:
        return Asked.NOT_SENT
    if any(scope == ALL for scope, _ in suppressions_of([address_hash(address)])):
        return Asked.NOT_SENT
    with transaction.atomic():
        if wanted is Wanted.EXPORT:
            # So that it is there when the mail is opened.
            ask_for_copy(contact, source="personal data page")
        is_new = write_notice(
            contact,
            find_wording(TEMPLATE, page_language(contact.locale, "")),
            action=PERSONAL_DATA,
            dedupe_key=once_a_day("data", contact, wanted.value),
            about={"what": wanted.value},
        )
    if not is_new:
        return Asked.SENT_BEFORE
    ring(Stream.TRANSACTIONAL.value)
    return Asked.SENT


def asked_by(message: Message) -> Wanted | None:
    """What the mail's link is good for; None when it is too old, or the address is no longer the
    person's, or they are being erased already."""
    contact = message.contact
    about = message.context.get("about") or {}
    is_theirs = bool(message.email_normalized) and (
        message.email_normalized == contact.email_normalized
    )
    is_fresh = now() - message.created_at < VALID_FOR
    if not (is_theirs and is_fresh and contact.is_active):
        return None
    return Wanted(about["what"]) if about.get("what") in list(Wanted) else None


def copy_for(message: Message) -> bytes | None:
    """The person's copy, JSON; None while it is being made. Asked for again where its time is
    over."""
    copy = ready_copy(message.contact)
    if copy is None:
        ask_for_copy(message.contact, source="personal data page")
        return None
    return bytes(copy.body)


def forget(message: Message) -> None:
    """The person confirmed it: no mail from now on, and everything is erased by and by."""
    begin_erasure(message.contact, source="erasure page")
