"""`manage.py consume kafka|rabbitmq|sqs`: take events from a broker's queue into the inbox."""

from argparse import ArgumentTypeError
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from events.consumers import BROKERS, connector
from events.consumers.stop import Stop
from events.consuming import Consumption
from events.models import DEFAULT_SOURCE, ApiKey


def source(text: str) -> str:
    """A namespace as an API key may have it."""
    try:
        ApiKey._meta.get_field("source").clean(text, None)
    except ValidationError as error:
        raise ArgumentTypeError(" ".join(error.messages)) from error
    return text


class Command(BaseCommand):
    help = (
        "Store the events of queues.marketing_events (see the configuration file) until SIGTERM. "
        "A message is acknowledged after it is committed; run as many as you like."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("broker", choices=BROKERS)
        parser.add_argument(
            "--source",
            type=source,
            default=DEFAULT_SOURCE,
            help="Namespace of the event ids; an event that also comes over the API with a key of "
            "the same source counts once. Default: %(default)s",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        broker, stop = options["broker"], Stop()
        try:
            consumption = Consumption(
                connector(broker), broker=broker, source=options["source"], stop=stop
            )
            stop.listen()
            consumption.run()
        except ModuleNotFoundError as error:
            raise CommandError(
                f"{error.name} is not installed: pip install -r requirements-brokers.txt"
            ) from error
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
