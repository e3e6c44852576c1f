"""One supervisor per runtime directory."""

import contextlib
import fcntl
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from emailauto.supervisor.exceptions import StartError


@contextlib.contextmanager
def sole_supervisor(var: Path) -> Iterator[None]:
    """Hold `run.lock` in `var`, made when missing; raise `StartError` when another does.

    The kernel frees the lock with its holder, however that dies.
    """
    var.mkdir(parents=True, exist_ok=True)
    _refuse_anothers(var)
    lock = os.open(var / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(_already_running(var)) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def _refuse_anothers(var: Path) -> None:
    """Files that root leaves in an ordinary user's directory would break that user's next start."""
    owner = var.stat().st_uid
    if owner == os.geteuid():
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"uid {owner}"
    raise StartError(
        f"{var} belongs to {name}. Run as {name}, or choose another directory: EMAILAUTO_VAR=…"
    )


def _already_running(var: Path) -> str:
    pid = (var / "run.lock").read_text().strip()
    try:
        place = f"at {json.loads((var / 'run.json').read_text())['url']}"
    except (OSError, ValueError, KeyError):
        place = "(still starting)"
    return f"emailauto already runs {place} as process {pid}; stop it with: kill {pid}"
