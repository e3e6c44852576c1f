"""What the sink has written down; see `bench.sink`."""

from pathlib import Path

from bench.processes import BenchError


def insist_on_each(accepted: Path, prefix: str, count: int, *, after: int = 0) -> None:
    """Raises `BenchError` unless the sink has taken one mail for each of the prefix's people since
    the file had `after` bytes."""
    lines = accepted.read_bytes()[after:].decode().splitlines()
    taken = [line.split()[1] for line in lines if f" {prefix}-" in line]
    if len(taken) != count or len(set(taken)) != count:
        raise BenchError(f"{len(taken)} mails to {len(set(taken))} people instead of {count}")
