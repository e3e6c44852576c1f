"""From the `202` to the provider's `250`, through the whole stack at a steady rate."""

import time
from pathlib import Path

from bench.comparison import GOAL, P50, P99, Comparison, Sample, Series, percentile
from bench.events import address
from bench.intake import post
from bench.load import Job
from bench.processes import BenchError, own, running
from bench.report import say
from bench.scale import Scale
from bench.sides import Side, emailauto_intake, emailauto_stack
from emailauto.embedded.server import free_port
from emailauto.supervisor import programs

_SECONDS = 30
_GOALS_MS = {100: 100.0, 300: 200.0}
"""By events per second: what the p99 may be."""
_PATIENCE_SECONDS = 240.0
_MAX = "max ms"


def latency(scale: Scale, logs: Path) -> list[Comparison]:
    """An order becomes a receipt; a sink on loopback notes when it accepted which. One worker."""
    port, accepted = free_port(), logs / "accepted"
    with (
        emailauto_stack(logs, {"EMAIL_URL": f"smtp://127.0.0.1:{port}"}) as (database, workplace),
        running(own("sink", logs, "-m", "bench.sink", str(port), str(accepted))),
        running(programs.worker(workplace)),
        emailauto_intake(database, workplace) as side,
    ):
        _mails(side, accepted, "warm-up", rate=50, events=scale.of(500))
        return [_at_rate(side, accepted, rate, scale) for rate in _GOALS_MS]


def _at_rate(side: Side, accepted: Path, rate: int, scale: Scale) -> Comparison:
    title = f"{rate} events a second for {_SECONDS * scale.part:.0f} s"
    count = scale.of(rate * _SECONDS)
    samples: list[Sample] = []
    for number in range(scale.rounds):
        say(f"{title}: round {number + 1} of {scale.rounds}")
        taken = _mails(side, accepted, f"r{rate}-{number}", rate=rate, events=count)
        samples.append({P99: percentile(taken, 99), P50: percentile(taken, 50), _MAX: max(taken)})
    goal = [{P99: _GOALS_MS[rate]}] * scale.rounds
    return Comparison(
        title, P99, count, Series(side.name, samples), Series(GOAL, goal), is_less_better=True
    )


def _mails(side: Side, accepted: Path, prefix: str, *, rate: int, events: int) -> list[float]:
    """Post at the rate; the milliseconds from each event's `202` to its mail's `250`. Raises
    `BenchError` when a mail is missing or comes twice."""
    job = Job(side.port, side.path, side.authorization, prefix, events, rate=rate)
    answered = post(job).answered_ns
    arrived = _arrivals(accepted, prefix, events)
    return [
        (arrived[address(prefix, number)] - moment) / 1e6 for number, moment in enumerate(answered)
    ]


def _arrivals(accepted: Path, prefix: str, count: int) -> dict[str, int]:
    """When the sink took the mail to each address."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(lines := _lines(accepted, prefix)) < count and time.monotonic() < deadline:
        time.sleep(0.2)
    arrived = {address: int(moment) for moment, address in lines}
    if len(arrived) != count or len(lines) != count:
        raise BenchError(f"{count} events became {len(lines)} mails to {len(arrived)} people")
    return arrived


def _lines(accepted: Path, prefix: str) -> list[tuple[str, str]]:
    if not accepted.exists():
        return []
    pairs = (line.split() for line in accepted.read_text(encoding="utf-8").splitlines())
    return [(moment, address) for moment, address in pairs if address.startswith(f"{prefix}-")]
