"""The engine with a thousand live campaigns against the engine with ten."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.comparison import Comparison, Sample, Series
from bench.database import Database
from bench.engine import Done
from bench.processes import BenchError, run
from bench.report import say
from bench.scale import Scale
from bench.sides import emailauto_stack
from emailauto.supervisor.programs import Workplace

_EVENTS = 10_000
# Where each campaign is asked it takes many times as long, at a rate that does not depend on it.
_ASKED_EVENTS = 2_000
_MANY, _FEW = 1_000, 10
_RATE = "events/s"

# Every event is of one person and starts one campaign.
_FILL = """
    TRUNCATE events_event, campaigns_enrollment, delivery_message, contacts_contact CASCADE;
    INSERT INTO events_event
        (source, event_id, type, user_id, occurred_at, payload, metadata, body_hash, state, reason,
         outcome, attempts, lease_owner, error, note)
    SELECT 'api', 'e' || n, 'bench', 'user-' || n, now(),
           jsonb_build_object('number', n % {campaigns}, 'email', 'user-' || n || '@example.com'),
           '{{}}', sha256(n::text::bytea), 'pending', '', '[]', 0, '', '', ''
    FROM generate_series(1, {count}) AS n;
"""


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    campaigns: int
    events: int
    database: Database
    workplace: Workplace


def matching(scale: Scale, logs: Path) -> list[Comparison]:
    """Events that each start one of many live campaigns on their type; a thousand against ten.
    Beside it: conditions that no index helps with, so that each campaign is asked."""
    count, many = scale.of(_EVENTS), max(_FEW, scale.of_stored(_MANY))
    asked = min(count, _ASKED_EVENTS)
    with contextlib.ExitStack() as stack:
        plain, _ = stack.enter_context(emailauto_stack(logs))
        sides = []
        for name, campaigns, events, operator in (
            (f"{many:,} live campaigns", many, count, "eq"),
            (f"{_FEW} live campaigns", _FEW, count, "eq"),
            (f"{many:,}, each asked ({asked:,} events)", many, asked, "range"),
        ):
            database, workplace = stack.enter_context(emailauto_stack(logs, like=plain))
            run("-m", "bench.engine", "campaigns", str(campaigns), operator, env=workplace.env)
            sides.append(_Side(name, campaigns, events, database, workplace))
        samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
        for number in range(scale.rounds):
            say(f"Matching: round {number + 1} of {scale.rounds}")
            for side in reversed(sides) if number % 2 else sides:
                samples[side.name].append(_measured(side))
    ours, baseline, *others = (Series(name, taken) for name, taken in samples.items())
    title = f"{count:,} events, each for one campaign, one process"
    return [Comparison(title, _RATE, count, ours, baseline, others)]


def _measured(side: _Side) -> Sample:
    side.database.execute(_FILL.format(campaigns=side.campaigns, count=side.events))
    side.database.execute("VACUUM ANALYZE")
    side.database.execute("CHECKPOINT")
    output = run("-m", "bench.engine", "process", env=side.workplace.env)
    done = msgspec.json.decode(output, type=Done)
    if (mails := side.database.count("delivery_message")) != side.events:
        raise BenchError(f"{side.events} events became {mails} messages")
    return {_RATE: done.events / done.seconds}
