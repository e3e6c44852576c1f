"""`manage.py reconcile`: read the providers' lists now, and look for what is in doubt."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from webhooks.models import Poll
from webhooks.reconciliation.services import NoSuchProvider, reconcile_now


class Command(BaseCommand):
    help = "Read the providers' lists of bounces, complaints and unsubscribes now."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--provider", default="", help="only of the provider with this key")
        parser.add_argument(
            "--whole", action="store_true", help="also what was read before, from the beginning"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            polls = list(reconcile_now(provider=options["provider"], whole=options["whole"]))
        except NoSuchProvider as error:
            raise CommandError(f"no provider {error} whose lists can be read") from None
        self.stdout.write("\n".join(map(_line, polls)) or "No provider has lists that can be read.")
        if any(poll.last_error for poll in polls):
            raise CommandError("not every list could be read")


def _line(poll: Poll) -> str:
    counts = f"{poll.entries:>9} read {poll.restored:>9} restored"
    return f"{counts}  {poll.provider.key} {poll.list} {poll.last_error}".rstrip()
