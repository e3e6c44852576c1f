"""The mail that asks somebody to confirm that they want a topic."""

from contacts.models import Contact, Topic
from content.services import find_wording
from delivery.links import CONFIRM
from delivery.notices import once_a_day, write_notice
from preferences.languages import page_language

TEMPLATE = "confirm_subscription"


def ask(contact: Contact, topic: Topic) -> bool:
    """Put the mail into the queue inside the caller's transaction; False when one about the topic
    went to this address today. Ring the transactional lane after the commit."""
    return write_notice(
        contact,
        find_wording(TEMPLATE, page_language(contact.locale, "")),
        action=CONFIRM,
        dedupe_key=once_a_day("confirm", contact, topic.pk),
        about={"topic": topic.key, "name": topic.name, "description": topic.description},
    )
