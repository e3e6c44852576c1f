"""What the sink has written down; see `bench.sink`."""

from pathlib import Path

from bench.processes import BenchError


def insist_on_each(accepted: Path, prefix: str, count: int) -> None:
    """Raises `BenchError` unless the sink has taken one mail for each of the prefix's people."""
    lines = accepted.read_text(encoding="utf-8").splitlines()
    taken = [line.split()[1] for line in lines if f" {prefix}-" in line]
    if len(taken) != count or len(set(taken)) != count:
        raise BenchError(f"{len(taken)} mails to {len(set(taken))} people instead of {count}")
