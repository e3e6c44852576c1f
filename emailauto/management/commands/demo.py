"""`manage.py demo`: post a realistic stream of events to the running stack."""

import json
import time
from typing import Any

import click
import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from emailauto.shoppers import stream


class Command(BaseCommand):
    help = "Post a stream of shop events, so that the pages have something to show."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--events", type=int, default=100, help="how many (default 100)")
        parser.add_argument("--rate", type=float, default=10, help="per second (default 10)")
        parser.add_argument("--seed", type=int, help="same people and carts on every run")
        parser.add_argument("--url", help="base URL (default: the stack of `make run`)")
        parser.add_argument("--key", help="API key (default: the demo's)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["events"] < 1 or options["rate"] <= 0:
            raise CommandError("--events and --rate must be positive")
        url, key = _target(options["url"], options["key"])
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {key}"
            _post_all(session, f"{url}/api/v1/events", options)
        self.stdout.write(f"Posted {options['events']} events. See {url}/admin/")


def _target(url: str | None, key: str | None) -> tuple[str, str]:
    if url and key:
        return url.rstrip("/"), key
    try:
        running = json.loads((settings.VAR_DIR / "run.json").read_text())
    except OSError as error:
        raise CommandError(
            "nothing is running here: `make run`, or give --url and --key"
        ) from error
    return (url or running["url"]).rstrip("/"), key or running["api_key"]


def _post_all(session: requests.Session, url: str, options: dict[str, Any]) -> None:
    events = stream(options["events"], seed=options["seed"])
    started = time.monotonic()
    with click.progressbar(events, length=options["events"], label="Posting") as bar:
        for number, event in enumerate(bar):
            time.sleep(max(0.0, started + number / options["rate"] - time.monotonic()))
            try:
                session.post(url, json=event, timeout=10).raise_for_status()
            except requests.RequestException as error:
                raise CommandError(f"event {number + 1} was not accepted: {error}") from error
