"""Child processes of a benchmark: started, waited for, ended, and heard when they fail."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.report import say
from emailauto.processes import Child, Process, tail
from emailauto.supervisor.programs import Workplace

CHECKOUT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class BenchError(Exception):
    """The benchmark cannot go on; what it says is for a person."""


class CannotMeasure(Exception):
    """This system does not tell what the benchmark is about; what it says is for a person."""


@contextlib.contextmanager
def running(process: Process) -> Iterator[Child]:
    """The process, ended afterwards."""
    child = Child(process)
    child.start()
    try:
        yield child
    finally:
        child.stop()


@contextlib.contextmanager
def serving(process: Process, port: int) -> Iterator[None]:
    """A web server from its first answer on. How long that took is said and not measured."""
    started = time.monotonic()
    with running(process) as child:
        while not _answers(port):
            if child.exit_code() is not None or time.monotonic() - started > _START_SECONDS:
                raise BenchError(f"{process.name} did not start:\n{tail(process.log)}")
            time.sleep(0.02)
        say(f"{process.name} answers after {time.monotonic() - started:.1f} s")
        yield


def own(name: str, logs: Path, *argv: str) -> Process:
    """A program of the benchmark's own."""
    return Workplace(CHECKOUT, logs, os.environ).process(name, *argv)


def run(*argv: str, env: Mapping[str, str], stdin: bytes = b"") -> bytes:
    """What our Python wrote to stdout; raises `BenchError` with its stderr when it failed."""
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=CHECKOUT,
        env=dict(env),
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace")[-2000:]
        raise BenchError(f"{' '.join(argv)} failed:\n{reason}")
    return done.stdout


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
