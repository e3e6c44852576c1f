"""Where the servers' programs and data lie, and as whom they run.

An ordinary user runs them as himself, out of the wheels, with the data in `var/`. PostgreSQL
refuses to run as root, so root runs both as `nobody`; when `nobody` cannot enter the checkout or
the virtual environment (a home with mode 0700, an installation under umask 077), programs and
data go to a directory of root's that everybody may enter, and `var/` remembers which.
"""

import contextlib
import functools
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.processes import Identity, become

_BASES = (Path("/var/lib/emailauto"), Path("/var/tmp/emailauto"))  # noqa: S108 - checked below
_MEMORY = "servers.home"
_OWNER = "belongs-to"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A server in a wheel: the distribution, the parts of it that run, and the program in them.

    `program` is a glob, because its folder may be named after the platform.
    """

    distribution: str
    parts: tuple[str, ...]
    program: str


@dataclass(frozen=True, slots=True)
class Placement:
    """A directory that the servers' user may enter."""

    home: Path
    identity: Identity | None

    def directory(self, name: str) -> Path:
        """Return `home/name`, made when missing: mode 0700, the servers' own."""
        path = self.home / name
        path.mkdir(mode=0o700, exist_ok=True)
        if self.owner is not None:
            os.chown(path, *self.owner)
        return path

    def adopt(self, data: Path) -> None:
        """Move a server's data, if there are any, to here: complete or not at all."""
        target = self.home / data.name
        if self.owner is None or not data.is_dir() or target.exists():
            return
        draft = target.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)  # of a move that was cut off
        shutil.copytree(data, draft, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            os.chown(path, *self.owner, follow_symlinks=False)
        draft.rename(target)
        shutil.rmtree(data)

    @property
    def owner(self) -> tuple[int, int] | None:
        """Uid and gid of the servers' files; None when they are simply ours."""
        return (self.identity.uid, self.identity.gid) if self.identity else None

    def program(self, wheel: Wheel) -> Path:
        """Return the server's program, copied to where its user may run it if need be."""
        site = _site_of(wheel)
        program = _only(site, wheel)
        if _can_run(program, self.identity):
            return program
        copied = _only(_copy_programs(wheel, site), wheel)
        if not _can_run(copied, self.identity):
            raise EmbeddedError(f"{copied} cannot be run as {_name(self.identity)}.")
        return copied


def place(var: Path) -> Placement:
    """Return where the servers of the runtime directory `var` live."""
    identity = _servers_identity()
    home = _remembered_home(var)
    if home is None and _can_enter(var, identity):
        return Placement(var, identity)
    placement = Placement(home or _new_home(var), identity)
    for name in ("postgres", "valkey"):
        placement.adopt(var / name)
    return placement


@contextlib.contextmanager
def temporary_placement() -> Iterator[Placement]:
    """Yield a placement in a temporary directory, which is removed afterwards."""
    identity = _servers_identity()
    parents = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))  # noqa: S108
    parent = next((each for each in parents if _can_enter(each, identity)), parents[0])
    with tempfile.TemporaryDirectory(
        prefix="emailauto-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        if identity is not None:
            Path(name).chmod(0o711)
        yield Placement(Path(name), identity)


def _servers_identity() -> Identity | None:
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    return Identity(user.pw_name, user.pw_uid, user.pw_gid)


def _name(identity: Identity | None) -> str:
    return identity.name if identity else "this user"


def _remembered_home(var: Path) -> Path | None:
    """Return the directory outside `var` that was given to it, or None.

    A moved `var` takes its home along. A copied one does not: two servers on one data directory
    would destroy it.
    """
    home = _read_path(var / _MEMORY)
    if home is None:
        return None
    if not home.is_dir():
        raise EmbeddedError(
            f"The data of {var} are in {home}, which is gone. Restore it, or remove "
            f"{var / _MEMORY} to start without any."
        )
    owner = _read_path(home / _OWNER)
    if owner != var:
        if owner is not None and _read_path(owner / _MEMORY) == home:
            return None
        _write_path(home / _OWNER, var)
    return home


def _new_home(var: Path) -> Path:
    """Make a directory outside `var` that everybody may enter, and have `var` remember it."""
    prefix = hashlib.sha256(os.fsencode(var)).hexdigest()[:12] + "-"
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=_base()))
    home.chmod(0o711)
    _write_path(home / _OWNER, var)
    _write_path(var / _MEMORY, home)
    return home


@functools.cache
def _base() -> Path:
    """Return root's directory for what must not lie in the checkout."""
    for base in _BASES:
        with contextlib.suppress(OSError):
            base.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Anybody can make this directory below /var/tmp before us; root's programs and the
            # mail's data must not lie in what another may rename.
            status = base.lstat()
            if (
                status.st_uid == os.geteuid()
                and not status.st_mode & 0o022
                and not base.is_symlink()
            ):
                base.chmod(0o755)
                return base
    raise EmbeddedError(
        "No directory can be found for the embedded servers: tried "
        f"{' and '.join(map(str, _BASES))}. Run as an ordinary user, or set DATABASE_URL and "
        "REDIS_URL to servers of your own."
    )


def _site_of(wheel: Wheel) -> Path:
    try:
        found = metadata.distribution(wheel.distribution)
    except metadata.PackageNotFoundError as error:
        raise EmbeddedError(
            f"{wheel.distribution} is not installed. Install requirements-embedded.txt, or set "
            "DATABASE_URL and REDIS_URL to servers of your own."
        ) from error
    return Path(str(found.locate_file("")))


def _only(site: Path, wheel: Wheel) -> Path:
    found = sorted(site.glob(wheel.program))
    if len(found) != 1:
        raise EmbeddedError(f"{wheel.distribution} brings {len(found)} of {wheel.program}, not 1.")
    return found[0]


def _copy_programs(wheel: Wheel, site: Path) -> Path:
    """Copy the parts of `wheel` that run, once per version; return the directory that has them."""
    target = _base() / f"{wheel.distribution}-{metadata.version(wheel.distribution)}"
    if target.is_dir():
        return target
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    for part in wheel.parts:
        shutil.copytree(site / part, draft / part, symlinks=True)
    _open_to_all(draft)
    try:
        draft.rename(target)
    except OSError:  # another start was first
        shutil.rmtree(draft)
    return target


def _open_to_all(tree: Path) -> None:
    """Let everybody read `tree` and run what its owner may run, whatever the umask was."""
    for path in (tree, *tree.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        path.chmod(0o755 if mode & 0o100 else 0o644)


def _can_run(program: Path, identity: Identity | None) -> bool:
    return _succeeds_as(identity, str(program), "--version")


def _can_enter(directory: Path, identity: Identity | None) -> bool:
    return _succeeds_as(identity, "/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory))


def _succeeds_as(identity: Identity | None, *argv: str) -> bool:
    """Try it: the answer of the kernel covers ACLs, mount options and modes alike."""
    try:
        done = subprocess.run(
            argv, cwd="/", env={}, capture_output=True, timeout=30, check=False, **become(identity)
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _read_path(path: Path) -> Path | None:
    try:
        return Path(path.read_text(encoding="utf-8").rstrip("\n"))
    except OSError:
        return None


def _write_path(path: Path, value: Path) -> None:
    path.write_text(f"{value}\n", encoding="utf-8")
