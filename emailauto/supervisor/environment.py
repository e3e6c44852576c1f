"""What the operator gave: the process environment, `.env`, and nothing we wrote ourselves."""

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import environ

from emailauto.supervisor.exceptions import StartError

DEFAULT_PORT = 8000
_PORTS_TRIED = 100


def given_environment(checkout: Path) -> dict[str, str]:
    """Return the environment with `.env` below it, less what an earlier start left in it.

    `embedded.env` names the servers of the last start. Settings read it, and an operator may
    have sourced it; taken for the operator's word it would point at servers that are gone.
    """
    given = _read_env_file(checkout / ".env", dict(os.environ))
    left = _read_env_file(runtime_directory(given, checkout) / "embedded.env", {})
    return {name: value for name, value in given.items() if left.get(name) != value}


def runtime_directory(given: Mapping[str, str], checkout: Path) -> Path:
    """Return the absolute path of `var/`, with EMAILAUTO_VAR in its place when it is set."""
    return (checkout / (given.get("EMAILAUTO_VAR") or "var")).resolve()


def reserve_port(given: Mapping[str, str], host: str) -> socket.socket:
    """Return a socket that holds PORT, or without PORT the first free port from 8000 on.

    The web process can listen on it beside us, as it sets SO_REUSEPORT. Nobody else can while
    the socket is open; two starts at the same moment would share the port otherwise.
    """
    wanted = given.get("PORT")
    if not wanted:
        ports = range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED)
        held = next(filter(None, (_reserve(host, port) for port in ports)), None)
        if held is None:
            raise StartError(f"Ports {ports.start} to {ports[-1]} are all taken; set PORT.")
        return held
    if not wanted.isdecimal() or not 0 < int(wanted) < 65536:
        raise StartError(f"PORT={wanted} is not a port; set it to a number from 1 to 65535.")
    held = _reserve(host, int(wanted))
    if held is None:
        raise StartError(
            f"Port {wanted} on {host} is taken. Choose another (PORT={int(wanted) + 1} make run), "
            "or leave PORT unset and the next free one is used."
        )
    return held


def base_url(host: str, port: int) -> str:
    """Return the URL under which the web process is reached from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _read_env_file(path: Path, values: dict[str, str]) -> dict[str, str]:
    """Return `values` and, below them, what the file says, read as settings read it."""

    class _Reader(environ.Env):  # type: ignore[misc]  # django-environ has no types
        ENVIRON = values

    if path.is_file():
        _Reader.read_env(path)
    return values


def _reserve(host: str, port: int) -> socket.socket | None:
    """Bind the port without listening; None when it is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartError(f"HOST={host} is not an address of this machine: {error}") from error
    held = socket.socket(family, kind, protocol)
    try:
        # To bind, do as servers do: the ended connections of an earlier one do not count. Then
        # hold it against all who do likewise, and let in those who ask to share it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise StartError(f"Port {port} on {host} cannot be used: {error}") from error
    return held
