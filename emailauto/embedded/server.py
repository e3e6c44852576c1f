"""What PostgreSQL and Valkey have in common for those who start them."""

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from emailauto.embedded.exceptions import EmbeddedError
from emailauto.processes import Child, Process, tail

# Below every system's range of ephemeral ports: while a killed server is restarted, no outgoing
# connection may be given its port.
_PORTS = range(20_000, 32_000)
_START_SECONDS = 120.0  # recovery after a crash replays the log first


@dataclass(frozen=True, slots=True)
class Server:
    """A server on loopback: its process, the URL clients use, and whether it answers them."""

    process: Process
    url: str
    is_ready: Callable[[], bool]

    def wait(self, child: Child, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Return when the server answers; raise `EmbeddedError` when it ended or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if child.exit_code() is not None or time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.process.name} did not start. The end of {self.process.log}:\n"
                    f"{tail(self.process.log)}"
                )
            pause(0.02)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"No free port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1.")
