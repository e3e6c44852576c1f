"""Which servers the environment leaves to us, and the URLs under which they are found."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from emailauto.embedded.credentials import new_credentials
from emailauto.embedded.placement import Placement, temporary_placement
from emailauto.embedded.postgres import postgres_server
from emailauto.embedded.server import Server
from emailauto.embedded.valkey import valkey_server
from emailauto.processes import Child


def embedded_servers(
    given: Mapping[str, str], placement: Placement, *, logs: Path, is_synced: bool = True
) -> list[Server]:
    """Return the servers that `given` names no URL for, ready to be started.

    `is_synced`: what PostgreSQL has committed survives a power cut.
    """
    servers = []
    if not given.get("DATABASE_URL"):
        servers.append(postgres_server(placement, log=logs / "postgres.log", is_synced=is_synced))
    if not given.get("REDIS_URL"):
        servers.append(valkey_server(placement, log=logs / "valkey.log"))
    return servers


def service_urls(given: Mapping[str, str], servers: Sequence[Server]) -> dict[str, str]:
    """Return DATABASE_URL, REDIS_URL and CELERY_BROKER_URL as far as `given` lacks them."""
    url = {server.process.name: server.url for server in servers}
    found = {}
    if "postgres" in url:
        found["DATABASE_URL"] = url["postgres"]
    if "valkey" in url:
        found["REDIS_URL"] = f"{url['valkey']}/0"
    if not given.get("CELERY_BROKER_URL"):
        found["CELERY_BROKER_URL"] = f"{url['valkey']}/1" if "valkey" in url else given["REDIS_URL"]
    return found


@contextlib.contextmanager
def throwaway_services(
    given: Mapping[str, str], *, is_synced: bool = True
) -> Iterator[dict[str, str]]:
    """Yield the variables that `given` lacks for the application to start; then remove all.

    Besides the URLs these are the secrets, without which settings refuse a database.
    """
    with temporary_placement() as placement, contextlib.ExitStack() as running:
        servers = embedded_servers(given, placement, logs=placement.home, is_synced=is_synced)
        for server in servers:
            child = Child(server.process)
            child.start()
            running.callback(child.stop)
            server.wait(child)
        missing = {name: value for name, value in new_credentials().items() if not given.get(name)}
        yield {**missing, **service_urls(given, servers)}
