"""The URLs to give to providers, each with credentials that are good for that provider alone."""

from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from webhooks.authenticity import is_pair, own_pair, own_path
from webhooks.providers import ADAPTERS


class Command(BaseCommand):
    help = (
        "Print the webhook URL of each provider, with its own credentials and a path nobody can "
        "guess. They follow from the first entry of WEBHOOK_SECRET, and are secrets."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", nargs="*", help="Those of these providers only.")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = options["provider"] or sorted(ADAPTERS)
        if unknown := sorted(set(wanted) - ADAPTERS.keys()):
            known = ", ".join(sorted(ADAPTERS))
            raise CommandError(f"No webhooks of {', '.join(unknown)} are taken; of these: {known}.")
        secret = next(filter(is_pair, settings.WEBHOOK_SECRET), "")
        if not secret:
            raise CommandError("Set WEBHOOK_SECRET=user:password; what is printed follows from it.")
        for provider in wanted:
            self.stdout.write(f"{provider}: {_url(provider, secret)}")


def _url(provider: str, secret: str) -> str:
    """With credentials where the provider has to bring them."""
    server = urlsplit(settings.PUBLIC_URL)
    asks = "WEBHOOK_SECRET" in ADAPTERS[provider].settings
    user = f"{own_pair(provider, secret)}@" if asks else ""
    path = f"{server.path}/webhooks/{provider}/{own_path(provider, secret)}/"
    return f"{server.scheme}://{user}{server.netloc}{path}"
