"""The pictures of the results."""

import re
from pathlib import Path
from xml.etree import ElementTree

from bench.comparison import GOAL, P99, Comparison, Series
from bench.plot import plot
from bench.results import copy_pictures, results

SVG = "{http://www.w3.org/2000/svg}"
UNIT = "mails/s"


def series(name: str, *rates: float, unit: str = UNIT) -> Series:
    return Series(name, [{unit: rate} for rate in rates])


def against_another() -> Comparison:
    ours, theirs = series("emailauto", 1500, 1400, 1700), series("a <b> & $c$", 500, 500, 500)
    return Comparison("Mails", UNIT, 9, ours, theirs, [series("beside", 100, 120, 110)])


def against_goal() -> Comparison:
    ours, goal = series("emailauto", 80, 90, 70, unit=P99), series(GOAL, 100, 100, 100, unit=P99)
    return Comparison("Latency", P99, 9, ours, goal, is_less_better=True)


def drawn(path: Path, *comparisons: Comparison) -> ElementTree.Element:
    plot(path, "name", comparisons)
    return ElementTree.fromstring(path.read_bytes())


def texts(picture: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def test_picture_says_what_it_shows_to_those_who_do_not_see_it(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "one.svg", against_another(), against_goal())
    title, description = picture[0], picture[1]
    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert (title.tag, title.text) == (
        f"{SVG}title",
        "Benchmark name: emailauto against what it is measured against",
    )
    assert (description.tag, description.text) == (
        f"{SVG}desc",
        "Mails: emailauto 1,500 mails/s (1,400 to 1,700); a <b> & $c$ 500.0 mails/s; "
        "beside 110.0 mails/s (100.0 to 120.0); ratio against a <b> & $c$ 3.00 (2.80–3.40). "
        "Latency: emailauto p99 80.0 ms (70.0 to 90.0); goal p99 100.0 ms; "
        "ratio against goal 1.25 (1.11–1.43).",
    )


def test_every_side_has_its_name_and_its_median_and_a_goal_is_a_line(tmp_path: Path) -> None:
    found = texts(drawn(tmp_path / "one.svg", against_another(), against_goal()))
    for text in ("emailauto", "a <b> & $c$", "beside", "1,500", "500.0", "110.0", "80.0"):
        assert text in found, text
    assert GOAL not in found
    assert "ratio against goal 1.25 (1.11–1.43), goal 100.0 (dashed line)" in found
    assert "mails/s, more is better" in found
    assert "p99 ms, less is better" in found


def test_whiskers_reach_from_the_least_to_the_most(tmp_path: Path) -> None:
    path = tmp_path / "one.svg"
    drawn(path, against_another())
    still = len(re.findall(r'id="LineCollection_', path.read_text()))
    assert still == 2  # emailauto and beside; what never changed has none


def test_same_figures_make_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        plot(tmp_path / name, "name", [against_another()])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_pictures_are_shown_below_the_table_and_replace_those_of_earlier_runs(
    tmp_path: Path,
) -> None:
    made, shown = tmp_path / "made", tmp_path / "shown"
    made.mkdir()
    shown.mkdir()
    plot(made / "pipeline.svg", "pipeline", [against_another()])
    (shown / "gone.svg").write_text("old")
    (shown / "pipeline.svg").write_text("old")
    copy_pictures(made, shown)
    assert [path.name for path in shown.iterdir()] == ["pipeline.svg"]
    assert (shown / "pipeline.svg").read_bytes() == (made / "pipeline.svg").read_bytes()
    picture = "![Bars: pipeline, as in the table](performance/pipeline.svg)"
    assert results(made).splitlines()[-1] == picture
