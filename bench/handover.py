"""Handing mails over to providers that are reached over HTTP: how fast, and in how many calls."""

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from bench.comparison import Comparison, Sample, Series
from bench.http_sender import Job
from bench.processes import BenchError, own, run, running
from bench.report import say
from bench.scale import Scale
from bench.sides import emailauto_stack
from delivery.providers import TRAITS
from emailauto.embedded.server import free_port

_MAILS = 10_000
# Its rate does not depend on how many there are, and at 5 ms a mail 10,000 would take all day.
_LOOPED = 750
_AT_ONCE = 32
_CLAIMED = 500
_DELAYS_MS = (5, 0)
_RATE = "mails/s"
_PROMISED = 20_000
# What is counted does not swing as what is timed does.
_PROMISE_ROUNDS = 2
_CALLS = "calls"
_MAILS_UNIT = "mails"
_FULL = 10
"""So many full batches."""


def http_single(scale: Scale, logs: Path) -> list[Comparison]:
    """One mail per call to a provider that takes 5 ms, or none, for its answer."""
    return [_speed(scale, logs, delay, batch_size=1) for delay in _DELAYS_MS]


def http_batch(scale: Scale, logs: Path) -> list[Comparison]:
    """Postmark's batches of 500 mails, each with a body of its own; the loop has one per call."""
    return [_speed(scale, logs, delay, batch_size=None) for delay in _DELAYS_MS]


def _speed(scale: Scale, logs: Path, delay: int, *, batch_size: int | None) -> Comparison:
    count, looped = scale.of(_MAILS), scale.of(_LOOPED)
    what = "One mail per call" if batch_size == 1 else "Batches of 500"
    title = f"{what}, {delay} ms per answer, {_AT_ONCE} at once"
    ours: list[Sample] = []
    theirs: list[Sample] = []
    with esp(logs, delay) as url:
        sides = [
            (ours, Job("emailauto", url, count, "postmark", batch_size, _AT_ONCE, _CLAIMED)),
            (theirs, Job("anymail", url, looped)),
        ]
        for number in range(scale.rounds):
            say(f"{title}: round {number + 1} of {scale.rounds}")
            for samples, job in sides if number % 2 == 0 else sides[::-1]:
                samples.append({_RATE: job.count / handed_over(job)})
    anymail = Series(f"anymail in a loop, one connection ({looped:,} mails)", theirs)
    return Comparison(title, _RATE, count, Series("emailauto", ours), anymail)


def calls_saved(scale: Scale, logs: Path) -> list[Comparison]:
    """Full batches to each provider that takes some: mails per call, against its limit."""
    return [_saved(scale, logs, kind) for kind, traits in TRAITS.items() if traits.batch]


def _saved(scale: Scale, logs: Path, kind: str) -> Comparison:
    batch = TRAITS[kind].batch
    assert batch is not None
    count = batch.messages * max(1, scale.of(_FULL))
    unit, samples = "mails/call", []
    with esp(logs, 0) as url:
        job = Job("emailauto", url, count, kind, batch.messages, 4, batch.messages)
        before = told(url)
        for number in range(scale.rounds):
            say(f"{kind}: round {number + 1} of {scale.rounds}")
            handed_over(job)
            after = told(url)
            if after["mails"] - before["mails"] != count or after["doubled"]:
                raise BenchError(f"{kind}: {count} mails became {after}")
            samples.append({unit: count / (after["calls"] - before["calls"])})
            before = after
    limit = [{unit: float(batch.messages)}] * scale.rounds
    return Comparison(
        f"Full batches, {kind}", unit, count, Series("emailauto", samples), Series("limit", limit)
    )


def promise(scale: Scale, logs: Path) -> list[Comparison]:
    """A broadcast with dead addresses and storms of 429, against a loop that retries everything."""
    count, rounds = scale.of(_PROMISED), min(scale.rounds, _PROMISE_ROUNDS)
    ours: dict[int, list[Sample]] = {1: [], 0: []}
    naive: list[Sample] = []
    with emailauto_stack(logs) as (_, workplace):
        for number in range(rounds):
            say(f"promise: round {number + 1} of {rounds}")
            naive.append(_broadcast(logs, workplace.env, "NAIVE", 1, count, f"n{number}"))
            for size, samples in ours.items():
                prefix = f"s{size}-{number}"
                samples.append(_broadcast(logs, workplace.env, "OURS", size, count, prefix))
                if samples[-1][_MAILS_UNIT] != naive[-1][_MAILS_UNIT]:
                    raise BenchError(f"not the same mails: {samples[-1]}, {naive[-1]}")
    titles = {1: "one mail per call", 0: "Postmark's batches"}
    return [
        Comparison(
            f"{count:,} people, {titles[size]}",
            _CALLS,
            count,
            Series("emailauto", samples),
            Series("retry everything", naive),
            is_less_better=True,
        )
        for size, samples in ours.items()
    ]


def _broadcast(
    logs: Path, env: Mapping[str, str], who: str, size: int, count: int, prefix: str
) -> Sample:
    with esp(logs, 0) as url:
        told(url, "/storms")
        run("-m", "bench.promised", who, url, str(size), str(count), prefix, env=env)
        found = told(url)
    if found["doubled"]:
        raise BenchError(f"{who}: {found}")
    say(f"{who}, {size or 'full'}: {found}")
    return {_CALLS: float(found["calls"]), _MAILS_UNIT: float(found["mails"])}


@contextlib.contextmanager
def esp(logs: Path, delay: int) -> Iterator[str]:
    """The URL of a running provider."""
    port = free_port()
    with running(own("esp", logs, "-m", "bench.esp", str(port), str(delay))):
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                told(url)
                yield url
                return
            time.sleep(0.05)
        raise BenchError("the provider did not start")


def told(url: str, path: str = "/") -> dict[str, int]:
    """What the provider has counted."""
    with urllib.request.urlopen(f"{url}{path}", timeout=5) as answer:  # noqa: S310 - our own
        found: dict[str, int] = msgspec.json.decode(answer.read())
    return found


def handed_over(job: Job) -> float:
    """The seconds a process needs for it, without its start."""
    return float(run("-m", "bench.http_sender", msgspec.json.encode(job).decode(), env=os.environ))
