"""What a benchmark says: a table for people, a line of JSON for programs, a file with all of it."""

import os
import platform
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from bench.comparison import P99, Comparison, Series
from bench.database import server_version


def say(text: str = "") -> None:
    """A line of output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def machine() -> str:
    """What was measured on, without a name or a path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores{_processor()}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, PostgreSQL {server_version()}"
    )


def table(comparison: Comparison) -> str:
    """Each side's figures and the ratios: per round, their median, their extremes."""
    rounds = [f"round {number + 1}" for number in range(len(comparison.ours.samples))]
    rows = [[comparison.title, "", *rounds, "median", "min–max"], *_rows(comparison)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(row, widths) for row in rows)


def headline(comparisons: Sequence[Comparison]) -> Comparison:
    """The one we look worst in."""
    return min(comparisons, key=lambda comparison: comparison.ratio)


def summary(name: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The result as one JSON object, from the comparison we look worst in.

    `ratio` is against the baseline; `median`, `min` and `max` are our own figures in `unit`.
    """
    worst = headline(comparisons)
    figures = worst.ours.figures(worst.unit)
    theirs = statistics.median(worst.baseline.figures(worst.unit))
    return {
        "name": name,
        "ratio": round(worst.ratio, 2),
        "median": round(statistics.median(figures), 1),
        "min": round(min(figures), 1),
        "max": round(max(figures), 1),
        "unit": worst.unit,
        "baseline": f"{worst.baseline.name}: {with_unit(theirs, worst.unit)} ({worst.title})",
        "n": worst.n,
        "rounds": len(figures),
        "machine": machine(),
    }


def write(path: Path, result: dict[str, Any], comparisons: Sequence[Comparison]) -> None:
    """Keep the result, and every figure it comes from."""
    details = [{"line": markdown(result["name"], c), **asdict(c)} for c in comparisons]
    document = msgspec.json.encode({**result, "comparisons": details})
    path.write_bytes(msgspec.json.format(document, indent=1) + b"\n")


def markdown(name: str, comparison: Comparison) -> str:
    """The comparison as a line of the table in docs/performance.md: medians, and the ratio's
    extremes."""
    ratios = comparison.ratios(comparison.baseline)
    cells = [
        f"`{name}`",
        comparison.title,
        _medians(comparison.ours),
        f"{comparison.baseline.name}: {_medians(comparison.baseline)}",
        f"**{comparison.ratio:.2f}** ({min(ratios):.2f}–{max(ratios):.2f})",
    ]
    return f"| {' | '.join(cells)} |"


def _medians(series: Series) -> str:
    figures = (with_unit(statistics.median(series.figures(unit)), unit) for unit in series.units)
    return ", ".join(figures)


def with_unit(figure: float, unit: str) -> str:
    """`1,532 events/s`, but `p99 26.9 ms`."""
    name, _, plain = unit.rpartition(" ")
    return f"{name} {number(figure)} {plain}".lstrip()


def _rows(comparison: Comparison) -> Iterator[list[str]]:
    ours = comparison.ours
    rivals = [comparison.baseline, *comparison.others]
    for series in (ours, *rivals):
        for unit in series.units:
            yield _row(series.name, unit, series.figures(unit))
    for rival in rivals:
        yield _row(f"against {rival.name}", "ratio", comparison.ratios(rival), digits=2)
        if comparison.unit != P99 and P99 in ours.units:
            tails = zip(ours.figures(P99), rival.figures(P99), strict=True)
            yield _row("", "p99 ÷ theirs", [mine / its for mine, its in tails], digits=2)


def _row(name: str, unit: str, figures: list[float], digits: int | None = None) -> list[str]:
    shown = [number(figure, digits) for figure in figures]
    extremes = f"{number(min(figures), digits)}–{number(max(figures), digits)}"
    return [name, unit, *shown, number(statistics.median(figures), digits), extremes]


def number(figure: float, digits: int | None = None) -> str:
    """`1,532`, but `26.9`."""
    if digits is None:
        digits = 0 if figure >= 1000 else 1
    return f"{figure:,.{digits}f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*left, *right]).rstrip()


def _processor() -> str:
    """The processor's name in brackets, where the system says it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return f" ({found[1].strip()})" if found else ""
