"""Each benchmark from beginning to end, far too small to say anything about speed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import BENCHES
from bench.scale import IN_ALL, ROUNDS
from tests.delivery.crashing import broker

ROOT = Path(__file__).resolve().parents[2]
# They measure on the two cores that the rest of the suite runs on; one after the other will do.
pytestmark = pytest.mark.xdist_group("bench")


@pytest.mark.parametrize(
    ("name", "part", "unit", "sizes"),
    [
        ("intake-single", "0.005", "events/s", {50}),
        ("intake-bulk", "0.005", "events/s", {100}),
        ("growth", "0.005", "events/s", {300}),
        ("matching", "0.05", "events/s", {500}),
        ("render", "0.005", "mails/s", {20}),
        ("memory", "0.01", "%", {100}),
        ("pipeline", "0.02", "mails/s", {200}),
        ("smtp-delay", "0.1", "mails/s", {20}),
        ("latency", "0.02", "p99 ms", {60, 180}),  # of the rate that comes off worse
        # 2,400 receipts at a rate, or 400 flat out.
        ("receipts", "0.04", None, {400, 2_400}),
        ("http-single", "0.01", "mails/s", {100}),
        ("http-batch", "0.01", "mails/s", {100}),
        ("calls-saved", "0.1", "mails/call", {50, 100, 500, 1_000}),
        ("promise", "0.005", "calls", {100}),
    ],
)
def test_benchmark_ends_with_its_result(
    tmp_path: Path, name: str, part: str, unit: str | None, sizes: set[int]
) -> None:
    # The database of this process of the suite: another's worker would hear the bell.
    own = dict.fromkeys(("REDIS_URL", "CELERY_BROKER_URL"), broker())
    rounds = 2 if name == "intake-single" else 1
    command = [sys.executable, "-m", "bench", name, "--part", part, "--rounds", str(rounds)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["name"], result["rounds"]) == (name, rounds)
    assert result["unit"] == unit or unit is None
    assert result["n"] in sizes
    assert 0 < result["min"] <= result["median"] <= result["max"]
    assert (tmp_path / f"{name}.svg").read_text().rstrip().endswith("</svg>")
    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert {field: kept[field] for field in result} == result
    assert all(len(each["ours"]["samples"]) == rounds for each in kept["comparisons"])


def test_run_of_all_has_a_size_for_each_and_never_more_than_the_whole() -> None:
    assert list(IN_ALL) == list(BENCHES)
    assert all(size.part <= 1 and size.rounds <= ROUNDS for size in IN_ALL.values())
    assert {size.stored for size in IN_ALL.values()} == {1.0}


def test_unknown_benchmark_is_refused_with_the_names() -> None:
    command = [sys.executable, "-m", "bench", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for name in ("intake-single", "intake-bulk", "growth", "render", "latency", "promise"):
        assert name in done.stderr


def test_benchmarks_without_servers_say_how_to_start_some() -> None:
    env = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "bench", "growth"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("DATABASE_URL: not set.")
    assert "make bench" in done.stdout
