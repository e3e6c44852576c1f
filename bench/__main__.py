"""`python -m bench [NAME]`: run one benchmark, or all of them. What `make bench` calls.

Each prints a table per comparison and, as its last line, its result as JSON; both also go to
`var/bench/<name>.json`, and a picture of them to `var/bench/<name>.svg`.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from bench.comparison import Comparison
from bench.handover import calls_saved, http_batch, http_single, promise
from bench.intake import growth, intake_bulk, intake_single
from bench.latency import latency
from bench.matching import matching
from bench.memory import memory
from bench.pipeline import pipeline
from bench.plot import plot
from bench.processes import CHECKOUT, BenchError, CannotMeasure
from bench.receipts import receipts
from bench.render import render
from bench.report import say, summary, table, write
from bench.scale import IN_ALL, ROUNDS, Scale
from bench.smtp_delay import smtp_delay
from emailauto.processes import tail

BENCHES: dict[str, Callable[[Scale, Path], list[Comparison]]] = {
    "intake-single": intake_single,
    "intake-bulk": intake_bulk,
    "growth": growth,
    "latency": latency,
    "matching": matching,
    "receipts": receipts,
    "render": render,
    "memory": memory,
    "pipeline": pipeline,
    "smtp-delay": smtp_delay,
    "http-single": http_single,
    "http-batch": http_batch,
    "calls-saved": calls_saved,
    "promise": promise,
}

_NEEDED = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "SECRET_KEY")
_STARTED_BY = (
    "The benchmarks need servers: `make bench` starts some and throws them away afterwards. With "
    "arguments: make bench NAME=growth ARGS='--part 0.1 --rounds 2'."
)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 1 when a benchmark could not be run to its end, 2 when none could
    begin."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("name", nargs="?", choices=BENCHES)
    parser.add_argument("--part", type=float, help="of the full size, to try it out")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "var" / "bench")
    options = parser.parse_args(argv)
    if missing := [name for name in _NEEDED if not os.environ.get(name)]:
        say(f"{', '.join(missing)}: not set. {_STARTED_BY}")
        return 2
    signal.signal(signal.SIGTERM, _leave)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for name in [options.name] if options.name else BENCHES:
            _run(name, _scale(name, options), options.out)
    except BenchError as error:
        say(str(error))
        return 1
    return 0


def _scale(name: str, options: argparse.Namespace) -> Scale:
    """As asked for; otherwise full size for one benchmark, and what there is time for in a run of
    all."""
    if options.part is None and options.rounds is None:
        return Scale() if options.name else IN_ALL[name]
    part, rounds = options.part or 1.0, options.rounds or ROUNDS
    return Scale(part, rounds, stored=part)


def _leave(number: int, _frame: FrameType | None) -> None:
    """Unwind, so that the processes are ended and the databases dropped."""
    raise SystemExit(128 + number)


def _run(name: str, scale: Scale, out: Path) -> None:
    say(f"=== {name}: {' '.join((BENCHES[name].__doc__ or '').split())}")
    with tempfile.TemporaryDirectory(prefix="bench-") as logs:
        try:
            comparisons = BENCHES[name](scale, Path(logs))
        except CannotMeasure as reason:
            say(f"{name} cannot be measured here: {reason}")
            return
        except BenchError:
            for log in Path(logs).glob("*.log"):
                say(f"--- the end of {log.name}\n{tail(log)}")
            raise
    result = summary(name, comparisons)
    write(out / f"{name}.json", result, comparisons)
    plot(out / f"{name}.svg", name, comparisons)
    for comparison in comparisons:
        say(f"\n{table(comparison)}")
    say(f"\n{msgspec.json.encode(result).decode()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
