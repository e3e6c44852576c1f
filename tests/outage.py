"""Redis that is away: pointed at a port where nobody answers, and back again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from django.test import override_settings

from common.bell import redis_client
from common.buckets import forget_scripts


@contextmanager
def redis_away(*, hangs: bool = False) -> Iterator[None]:
    """Inside, Redis refuses connections, or with `hangs` takes them and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if hangs:
            server.listen(16)
        with override_settings(REDIS_URL=f"redis://127.0.0.1:{server.getsockname()[1]}/0"):
            _forget_clients()
            try:
                yield
            finally:
                redis_client().close()
                _forget_clients()


def _forget_clients() -> None:
    redis_client.cache_clear()
    forget_scripts()
