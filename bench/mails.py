"""`python -m bench.mails COUNT`: put sent mails into the database, each to a person of its own, for
providers to tell about."""

import os
import sys

import django

_CHUNK = 5_000


def make(count: int) -> None:
    """Mails as delivery leaves them."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    from common.clock import now
    from contacts.models import Contact
    from content.models import TemplateVersion
    from delivery.models import Message, Sender
    from delivery.states import MessageState, Stream

    sender = Sender.objects.select_related("provider").first()
    version = TemplateVersion.objects.first()
    assert sender is not None  # of the demo
    assert version is not None
    addresses = [f"reader-{number}@example.com" for number in range(count)]
    contacts = Contact.objects.bulk_create(
        [Contact(user_id=a, email=a, email_normalized=a, may_track=True) for a in addresses],
        _CHUNK,
    )
    moment = now()
    Message.objects.bulk_create(
        [
            Message(
                dedupe_key=f"bench:{contact.email}",
                contact=contact,
                email=contact.email,
                email_normalized=contact.email,
                stream=Stream.MARKETING,
                template_version=version,
                sender=sender,
                provider=sender.provider,
                state=MessageState.SENT,
                attempts=1,
                handed_over_at=moment,
                sent_at=moment,
            )
            for contact in contacts
        ],
        _CHUNK,
    )


if __name__ == "__main__":
    make(int(sys.argv[1]))
