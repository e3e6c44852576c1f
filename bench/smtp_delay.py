"""One SMTP connection to a server that is 20 ms away, against Django's own backend."""

import os
from pathlib import Path

from bench.comparison import Comparison, Sample, Series
from bench.processes import BenchError, own, run, running
from bench.report import say
from bench.scale import Scale
from emailauto.embedded.server import free_port

_MAILS = 200
_SECONDS = 0.02
_RATE = "mails/s"
_SENDERS = {"emailauto": "emailauto", "django": "Django's SMTP backend"}


def smtp_delay(scale: Scale, logs: Path) -> list[Comparison]:
    """Mails that are made already, over one open connection each. The sink answers whatever arrives
    20 ms later, as over a network with that round-trip time: replies that belong together come
    together. Ours writes its journal meanwhile."""
    port, accepted = free_port(), logs / "accepted"
    count = scale.of(_MAILS)
    samples: dict[str, list[Sample]] = {who: [] for who in _SENDERS}
    sink = own("sink", logs, "-m", "bench.sink", str(port), str(accepted), str(_SECONDS))
    with running(sink):
        for number in range(scale.rounds):
            say(f"{count} mails: round {number + 1} of {scale.rounds}")
            for who in reversed(samples) if number % 2 else samples:
                samples[who].append({_RATE: count / _seconds(who, port, count)})
    taken, expected = len(accepted.read_text("utf-8").splitlines()), 2 * count * scale.rounds
    if taken != expected:
        raise BenchError(f"the sink took {taken} mails instead of {expected}")
    ours, theirs = (Series(_SENDERS[who], figures) for who, figures in samples.items())
    title = f"One connection, {_SECONDS * 1000:.0f} ms per round trip"
    return [Comparison(title, _RATE, count, ours, theirs)]


def _seconds(who: str, port: int, count: int) -> float:
    output = run("-m", "bench.smtp_sender", who, str(port), str(count), env=os.environ)
    return float(output)
