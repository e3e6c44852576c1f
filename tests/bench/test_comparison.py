"""The arithmetic of the benchmarks."""

from pathlib import Path

import pytest

from bench.comparison import P50, P99, Comparison, Series, percentile
from bench.report import headline, summary, table, write
from bench.results import results

UNIT = "events/s"


def series(name: str, *rates: float, p99: float = 10.0) -> Series:
    return Series(name, [{UNIT: rate, P50: 1.0, P99: p99} for rate in rates])


def comparison(title: str, ours: list[float], theirs: list[float]) -> Comparison:
    return Comparison(title, UNIT, 500, series("ours", *ours, p99=5.0), series("theirs", *theirs))


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert [percentile([7.0], percent) for percent in (0, 50, 99)] == [7.0, 7.0, 7.0]


def test_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    compared = comparison("", [100, 400, 900], [50, 100, 900])
    assert compared.ratios(compared.baseline) == [2.0, 4.0, 1.0]
    assert compared.ratio == 2.0


def test_ratio_is_turned_round_where_less_is_better() -> None:
    goal = Series("goal", [{P99: 100.0}])
    compared = Comparison("", P99, 1, Series("ours", [{P99: 25.0}]), goal, is_less_better=True)
    assert compared.ratio == 4.0


def test_summary_is_of_the_comparison_we_look_worst_in() -> None:
    good = comparison("good", [900, 900, 900], [100, 100, 100])
    poor = comparison("poor", [250, 300, 200], [100, 100, 100])
    result = summary("name", [good, poor])
    assert headline([good, poor]) is poor
    assert {name: value for name, value in result.items() if name != "machine"} == {
        "name": "name",
        "ratio": 2.5,
        "median": 250.0,
        "min": 200.0,
        "max": 300.0,
        "unit": "events/s",
        "baseline": "theirs: 100.0 events/s (poor)",
        "n": 500,
        "rounds": 3,
    }


def test_table_shows_every_round_the_medians_and_the_tail_against_the_baselines() -> None:
    lines = [
        line.split() for line in table(comparison("Title", [2000, 300], [100, 100])).split("\n")
    ]
    assert lines == [
        ["Title", "round", "1", "round", "2", "median", "min–max"],
        ["ours", "events/s", "2,000", "300.0", "1,150", "300.0–2,000"],
        ["ours", "p50", "ms", "1.0", "1.0", "1.0", "1.0–1.0"],
        ["ours", "p99", "ms", "5.0", "5.0", "5.0", "5.0–5.0"],
        ["theirs", "events/s", "100.0", "100.0", "100.0", "100.0–100.0"],
        ["theirs", "p50", "ms", "1.0", "1.0", "1.0", "1.0–1.0"],
        ["theirs", "p99", "ms", "10.0", "10.0", "10.0", "10.0–10.0"],
        ["against", "theirs", "ratio", "20.00", "3.00", "11.50", "3.00–20.00"],
        ["p99", "÷", "theirs", "0.50", "0.50", "0.50", "0.50–0.50"],
    ]


def test_results_hold_a_line_for_each_comparison_of_every_file(tmp_path: Path) -> None:
    compared = comparison("Lists", [1500, 1700], [100, 200])
    for name in ("one", "another"):
        write(tmp_path / f"{name}.json", {"name": name, "machine": "a box"}, [compared])
    cells = "Lists | 1,600 events/s, p50 1.0 ms, p99 5.0 ms | theirs: 150.0 events/s, p50 1.0 ms, "
    assert results(tmp_path).split("\n") == [
        "a box",
        "",
        "| bench | what | emailauto | against | ratio, median (min–max) |",
        "|---|---|---|---|---|",
        f"| `another` | {cells}p99 10.0 ms | **11.75** (8.50–15.00) |",
        f"| `one` | {cells}p99 10.0 ms | **11.75** (8.50–15.00) |",
    ]
