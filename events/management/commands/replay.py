"""`manage.py replay`: give dead events another try, or let refused ones in, many at once."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, QuerySet

from events.dead_letters import (
    Replay,
    dead_events,
    in_batches,
    refused_events,
    replay_dead,
    replay_rejections,
)
from events.models import Event, Rejection
from events.states import RefusalCode

_CODES = [code.value for code in RefusalCode]
_MOST_TYPES = 50


def moment(text: str) -> datetime:
    """An ISO 8601 date or time, of UTC unless it says otherwise; `ValueError` for others."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class Command(BaseCommand):
    help = "Replay dead events, or refused ones whose content was kept, in batches."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--dead", action="store_true", help="what the engine gave up on")
        which.add_argument("--refused", action="store_true", help="what was not let in")
        parser.add_argument("--type", default="", help="only of this event type")
        parser.add_argument("--source", default="", help="only of this source")
        parser.add_argument("--since", type=moment, help="only since this date or time (UTC)")
        parser.add_argument("--code", default="", choices=_CODES, help="only refused with it")
        parser.add_argument("--limit", type=int, help="at most this many, the oldest ones")
        parser.add_argument("--dry-run", action="store_true", help="only say how many there are")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["code"] and options["dead"]:
            raise CommandError("--code goes with --refused")
        filters = {name: options[name] for name in ("type", "source", "since")}
        if options["dead"]:
            dead = dead_events(**filters)
            done = _counted(dead) if options["dry_run"] else _revived(dead, options["limit"])
        else:
            refused = refused_events(**filters, code=options["code"])
            done = _counted(refused) if options["dry_run"] else _let_in(refused, options["limit"])
        self.stdout.write(done)


def _counted(rows: "QuerySet[Event] | QuerySet[Rejection]") -> str:
    counts = rows.order_by().values_list("type").annotate(count=Count("pk"))
    lines = [f"{count:>9}  {name}" for name, count in counts.order_by("-count", "type")]
    return "\n".join([*lines[:_MOST_TYPES], f"{rows.count():>9}  altogether"])


def _revived(dead: QuerySet[Event], most: int | None) -> str:
    count = sum(replay_dead(ids) for ids in in_batches(dead, most=most))
    return f"{count} dead events are pending again."


def _let_in(refused: QuerySet[Rejection], most: int | None) -> str:
    total = Replay(0, 0)
    for ids in in_batches(refused, most=most):
        total += replay_rejections(ids)
    return f"{total.taken} refused events were let in, {total.refused} were refused again."
