"""Mails of the house itself, to one person about their own doing: confirm this, here is your copy.

Transactional messages like any other: gated, journaled, at most once. There is no advertising in
them, and no word that somebody else has typed into a form.
"""

from typing import Any

from common.addresses import address_hash
from common.clock import now
from common.rows import insert_rows
from contacts.models import Contact
from content.models import TemplateVersion
from delivery.models import Message
from delivery.states import Stream


def once_a_day(what: str, contact: Contact, *about: object) -> str:
    """The key of a notice that goes to one address at most once on a day (UTC), whatever address
    the person had in the morning."""
    address = address_hash(contact.email_normalized or "").hex()[:16]
    return ":".join((what, *map(str, (contact.pk, *about, address, f"{now():%Y-%m-%d}"))))


def write_notice(
    contact: Contact, wording: TemplateVersion, *, action: str, dedupe_key: str, about: Any
) -> bool:
    """Put the mail into the queue inside the caller's transaction; False when there was one of
    this key before. `action` is the purpose of its link (`delivery.links`); the template sees
    `about` under that name. Ring the transactional lane after the commit."""
    message = Message(
        dedupe_key=dedupe_key,
        contact=contact,
        email=contact.email,
        email_normalized=contact.email_normalized or "",
        stream=Stream.TRANSACTIONAL,
        template_version=wording,
        context={"payload": {}, "action": action, "about": about},
    )
    insert_rows([message], ignore_conflicts=True)
    return Message.objects.filter(pk=message.pk).exists()
