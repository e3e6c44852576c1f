"""What a worker holds in memory: beside nothing of ours, and with many people in the database."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.comparison import GOAL, Comparison, Sample, Series
from bench.database import Database
from bench.processes import CHECKOUT, BenchError, CannotMeasure, own, running
from bench.report import say
from bench.scale import Scale
from bench.sending import Sending, emailauto_sending, warm_worker
from emailauto.embedded.server import free_port
from emailauto.processes import Process
from emailauto.supervisor import programs
from emailauto.supervisor.programs import Workplace

_MAILS = 10_000
_FEW, _MANY = 10_000, 1_000_000
_GOAL_BARE, _GOAL_GROWTH = 130.0, 105.0
_UNIT = "%"
_PREFIX = "stored"
_START_SECONDS = 60.0

_FILL = """
    INSERT INTO contacts_contact
        (user_id, email, email_normalized, name, attributes, region, is_active, locale, may_track,
         do_not_share)
    SELECT '{prefix}-' || n, '{prefix}-' || n || '@example.com',
           '{prefix}-' || n || '@example.com', 'Ada Abel', '{{"plan": "basic"}}', '', true, '',
           false, false
    FROM generate_series(0, {count} - 1) AS n
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Proportional set sizes of a worker, in MB (10⁶ bytes): a page that several processes share
    counts in each by its part, so that they add up."""

    parent: float
    pool: Sequence[float]

    @property
    def largest(self) -> float:
        """Of the processes that do the work."""
        return max(self.pool)

    @property
    def whole(self) -> float:
        return self.parent + sum(self.pool)


def memory(scale: Scale, logs: Path) -> list[Comparison]:
    """A worker that has just sent 10,000 mails. One process of it against one that has imported
    Django and Celery and nothing else; all of them against Celery's own worker on a project with
    nothing in it; and with a million contacts stored, of whom those mails are to some, against ten
    thousand. Contacts are all the recipients there are: nothing expands an audience yet."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise CannotMeasure(f"{sys.platform} does not tell proportional set sizes; Linux does.")
    count, few, many = scale.of(_MAILS), scale.of_stored(_FEW), scale.of_stored(_MANY)
    port, accepted = free_port(), logs / "accepted"
    with (
        running(own("sink", logs, "-m", "bench.sink", str(port), str(accepted))),
        emailauto_sending(logs, port, accepted, keeps_contacts=True) as small,
        emailauto_sending(logs, port, accepted, keeps_contacts=True, like=small.database) as large,
    ):
        _fill(small.database, few)
        _fill(large.database, many)
        rounds = [
            _measured(number, scale, (small, _spread(count, few)), (large, _spread(count, many)))
            for number in range(scale.rounds)
        ]
    return [
        _against_goal(
            "A process of the worker, of one that imported Django and Celery",
            *(_GOAL_BARE, count),
            [{"worker MB": r.small.largest, "bare MB": r.imported} for r in rounds],
        ),
        _against_goal(
            "All processes of the worker, of an empty project's",
            *(_GOAL_BARE, count),
            [{"worker MB": r.small.whole, "empty MB": r.empty.whole} for r in rounds],
        ),
        _against_goal(
            f"All processes, {many:,} contacts, of the same with {few:,}",
            *(_GOAL_GROWTH, count),
            [{"many MB": r.large.whole, "few MB": r.small.whole} for r in rounds],
            is_either_way=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Round:
    small: Held
    large: Held
    imported: float
    empty: Held


def _measured(
    number: int,
    scale: Scale,
    small: tuple[Sending, Sequence[int]],
    large: tuple[Sending, Sequence[int]],
) -> _Round:
    say(f"Memory: round {number + 1} of {scale.rounds}")
    sides = {"small": small, "large": large}
    held = {name: _worked(*sides[name]) for name in (reversed(sides) if number % 2 else sides)}
    workplace = small[0].workplace
    return _Round(held["small"], held["large"], _imported(workplace.env), _empty(workplace))


def _against_goal(
    title: str, goal: float, count: int, pairs: Sequence[Sample], *, is_either_way: bool = False
) -> Comparison:
    """The first of each pair as per cent of the second; `is_either_way`: or the second of the
    first, if that is more."""
    samples: list[Sample] = []
    for pair in pairs:
        ours, theirs = pair.values()
        share = 100 * ours / theirs
        samples.append({_UNIT: max(share, 1e4 / share) if is_either_way else share, **pair})
    series = Series("emailauto", samples)
    met = Series(GOAL, [{_UNIT: goal}] * len(samples))
    return Comparison(title, _UNIT, count, series, met, is_less_better=True)


def _spread(count: int, stored: int) -> range:
    """The numbers of so many contacts from all over the table."""
    return range(0, stored, max(1, stored // count))[:count]


def _fill(database: Database, count: int) -> None:
    say(f"Storing {count:,} contacts …")
    database.execute(_FILL.format(prefix=_PREFIX, count=count))
    database.execute("VACUUM ANALYZE contacts_contact")


def _worked(sending: Sending, people: Sequence[int]) -> Held:
    """A new worker that has sent a mail to each of the people."""
    with warm_worker(sending, people=range(100)) as worker:
        known = sending.database.count("contacts_contact")
        sending.seconds(_PREFIX, people)
        if sending.database.count("contacts_contact") != known:
            raise BenchError("mails went to people who were not stored")
        assert worker.pid is not None
        return _held(worker.pid)


def _imported(env: Mapping[str, str]) -> float:
    """The process that has imported Django and Celery, in MB."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.baselines.bare"],
        cwd=CHECKOUT,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchError("Django and Celery cannot be imported")
        held = _pss(process.pid)
        process.stdin.close()
    return held


def _empty(workplace: Workplace) -> Held:
    """Celery's worker on a project with nothing in it, by the same command line."""
    with running(_empty_worker(workplace)) as worker:
        assert worker.pid is not None
        deadline = time.monotonic() + _START_SECONDS
        while not _says_ready(worker.process.log):
            if worker.exit_code() is not None or time.monotonic() > deadline:
                raise BenchError("Celery's worker did not start")
            time.sleep(0.2)
        return _held(worker.pid)


def _empty_worker(workplace: Workplace) -> Process:
    argv = list(programs.worker(workplace).argv[1:])
    argv[argv.index("-A") + 1] = "bench.baselines.bare.app"
    argv[argv.index("-Q") + 1] = "nothing"
    return workplace.process("empty-worker", *argv)


def _says_ready(log: Path) -> bool:
    return log.exists() and log.read_bytes().rstrip().endswith(b"ready.")


def _held(parent: int) -> Held:
    children = psutil.Process(parent).children()
    return Held(_pss(parent), [_pss(child.pid) for child in children])


def _pss(pid: int) -> float:
    """The proportional set size of a process in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib * 1024 / 1e6
