"""A benchmark as a picture: bars of medians with the extremes as whiskers, a line for a goal."""

import html
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.comparison import GOAL, Comparison, Series
from bench.report import number, with_unit

_INK, _FAINT, _PAPER = "#17212b", "#5b6774", "#ffffff"
_OURS, _BASELINE, _OTHER, _GOAL = "#1c6ea4", "#8794a1", "#c3cbd3", "#b3401f"
_ON_PAPER = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.0}
_WIDTH = 8.6
# Inches, of a bar and of what a comparison has besides its bars.
_BAR, _FRAME = 0.36, 1.05
_STYLE = {
    # Text stays text: it can be read aloud, found and copied.
    "svg.fonttype": "none",
    # The same figures make the same file.
    "svg.hashsalt": "emailauto",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _FAINT,
    "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _INK,
    # Names are names and no formulas.
    "text.parse_math": False,
}


def plot(path: Path, name: str, comparisons: Sequence[Comparison]) -> None:
    """Write the picture as SVG, with a title and a description for those who do not see it."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = _figure(comparisons)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    title = f"Benchmark {name}: emailauto against what it is measured against"
    path.write_text(_described(text.getvalue(), name, title, description(comparisons)), "utf-8")


def description(comparisons: Sequence[Comparison]) -> str:
    """What the picture shows, in words."""
    return " ".join(_in_words(comparison) for comparison in comparisons)


def _in_words(comparison: Comparison) -> str:
    unit = comparison.unit
    sides = "; ".join(
        f"{series.name} {with_unit(statistics.median(series.figures(unit)), unit)}"
        f"{_range(series.figures(unit))}"
        for series in (comparison.ours, comparison.baseline, *comparison.others)
    )
    return f"{comparison.title}: {sides}; {_ratio(comparison)}."


def _range(figures: Sequence[float]) -> str:
    low, high = number(min(figures)), number(max(figures))
    return "" if low == high else f" ({low} to {high})"


def _ratio(comparison: Comparison) -> str:
    ratios = comparison.ratios(comparison.baseline)
    low, high = min(ratios), max(ratios)
    return f"ratio against {comparison.baseline.name} {comparison.ratio:.2f} ({low:.2f}–{high:.2f})"


def _figure(comparisons: Sequence[Comparison]) -> Figure:
    heights = [_FRAME + _BAR * len(_bars(comparison)) for comparison in comparisons]
    figure = Figure(
        figsize=(_WIDTH, sum(heights)),
        facecolor=_PAPER,
        layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1),
    )
    rows: Any = figure.subplots(
        len(comparisons), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, comparison in zip(rows[:, 0], comparisons, strict=True):
        _draw(axes, comparison)
    return figure


def _bars(comparison: Comparison) -> list[tuple[Series, str]]:
    """What becomes a bar, and its colour."""
    bars = [(comparison.ours, _OURS)]
    if comparison.baseline.name != GOAL:
        bars.append((comparison.baseline, _BASELINE))
    return [*bars, *((series, _OTHER) for series in comparison.others)]


def _draw(axes: Axes, comparison: Comparison) -> None:
    unit, bars = comparison.unit, _bars(comparison)
    most = max(max(series.figures(unit)) for series, _ in bars)
    if comparison.baseline.name == GOAL:
        goal = statistics.median(comparison.baseline.figures(unit))
        rim = patheffects.withStroke(linewidth=4, foreground=_PAPER)
        axes.axvline(goal, color=_GOAL, linewidth=1.6, linestyle="--", path_effects=[rim])
        most = max(most, goal)
    for place, (series, colour) in enumerate(bars):
        figures = series.figures(unit)
        low, middle, high = min(figures), statistics.median(figures), max(figures)
        axes.barh(place, middle, height=0.62, color=colour)
        if low != high:
            whisker = [[middle - low], [high - middle]]
            axes.errorbar(middle, place, xerr=whisker, color=_INK, capsize=3, linewidth=1)
        axes.text(high + most * 0.012, place, number(middle), va="center", bbox=_ON_PAPER, zorder=3)
    axes.set_yticks(range(len(bars)), [series.name for series, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, most * 1.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(f"{unit}, {'less' if comparison.is_less_better else 'more'} is better")
    axes.set_title(comparison.title, loc="left", fontsize=10.5, fontweight="bold", pad=16)
    axes.annotate(
        _subtitle(comparison),
        *((0, 1), (0, 4)),
        xycoords="axes fraction",
        textcoords="offset points",
        color=_FAINT,
    )
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _subtitle(comparison: Comparison) -> str:
    if comparison.baseline.name == GOAL:
        goal = statistics.median(comparison.baseline.figures(comparison.unit))
        return f"{_ratio(comparison)}, {GOAL} {number(goal)} (dashed line)"
    return _ratio(comparison)


def _described(svg: str, name: str, title: str, words: str) -> str:
    """The picture with its title and its description as its first children."""
    head, found, rest = svg.partition("<svg ")
    attributes, _, content = rest.partition(">")
    label = f'role="img" aria-labelledby="{name}-title {name}-description" '
    told = (
        f'\n <title id="{name}-title">{html.escape(title)}</title>'
        f'\n <desc id="{name}-description">{html.escape(words)}</desc>'
    )
    return f"{head}{found}{label}{attributes}>{told}{content}"
