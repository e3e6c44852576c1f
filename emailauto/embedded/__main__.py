"""`python -m emailauto.embedded exec -- COMMAND…`: run a command against throw-away servers.

With `--unsynced` PostgreSQL never waits for the disk: right for tests, whose rows nobody misses
after a power cut, and wrong for whatever measures or keeps something.

DATABASE_URL, REDIS_URL and CELERY_BROKER_URL that the environment names are left alone. The
command's exit code is passed on, and so are signals to it.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.embedded.services import throwaway_services
from emailauto.processes import signalled_with_parent

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Run it and return the exit code; a death by signal is 128 + its number, as in a shell."""
    parser = argparse.ArgumentParser(prog="python -m emailauto.embedded")
    actions = parser.add_subparsers(required=True)
    execute = actions.add_parser("exec", help="run a command against throw-away servers")
    execute.add_argument("--unsynced", action="store_true", help="run PostgreSQL without fsync")
    execute.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        with throwaway_services(os.environ, is_synced=not arguments.unsynced) as services:
            return _run(arguments.command, {**os.environ, **services})
    except EmbeddedError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command line's own output
        return 1


def _leave(number: int, _frame: FrameType | None) -> None:
    """Unwind, so that the servers are stopped."""
    raise SystemExit(128 + number)


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    running: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if running is None:
            early.append(number)
        # A Ctrl-C in a terminal has reached the command already, which shares our group.
        elif number != signal.SIGINT or not sys.stdin.isatty():
            running.send_signal(number)

    # Before it is started: what a handler raises in the middle of a fork is ignored.
    for number in _FORWARDED:
        signal.signal(number, forward)
    running = subprocess.Popen(
        command, env=environment, preexec_fn=signalled_with_parent(signal.SIGTERM)
    )
    for missed in early:
        running.send_signal(missed)
    code = running.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
