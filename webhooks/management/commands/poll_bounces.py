"""`manage.py poll_bounces`: read the bounce mailbox once, now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from webhooks.mailbox.account import MailboxError
from webhooks.mailbox.services import poll


class Command(BaseCommand):
    help = "Keep what is in the bounce mailbox (BOUNCE_MAILBOX_URL) and put it away there."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            kept = poll()
        except MailboxError as error:
            raise CommandError(f"The bounce mailbox was not read: {error}.") from None
        if kept is None:
            raise CommandError("The bounce mailbox is being read at the moment, by a worker.")
        self.stdout.write(f"{kept} mails are kept.")
