"""The suppression list in Redis, for other services: `EXISTS suppression:<hex of the hash>`.

A mirror and nothing else: the gate asks PostgreSQL. It is written through after each commit and
synchronised in full every `suppression.sync_interval` seconds, so a flushed Redis fills again.
"""

import logging
from collections.abc import Iterable

import redis
from django.conf import settings

from common.valkey import redis_client
from suppression.models import Suppression

logger = logging.getLogger(__name__)

_CHUNK = 1_000


def mirror_added(hashes: Iterable[bytes]) -> None:
    """Write these addresses through; a failure is left to the next synchronisation."""
    if settings.EMAILAUTO.suppression.storage != "redis":
        return
    try:
        redis_client().mset({_key(digest): 1 for digest in hashes})
    except redis.RedisError as error:
        logger.warning("suppression mirror behind", extra={"error": type(error).__name__})


def sync_mirror() -> int:
    """Make the mirror equal to the table; returns the number of addresses in it."""
    if settings.EMAILAUTO.suppression.storage != "redis":
        return 0
    client = redis_client()
    stale = {bytes(key) for key in client.scan_iter(match=_key_prefix() + "*", count=_CHUNK)}
    chunk: dict[str, int] = {}
    total = 0
    hashes = Suppression.objects.in_force().values_list("address_hash", flat=True).distinct()
    for digest in hashes.iterator(chunk_size=_CHUNK):
        key = _key(bytes(digest))
        stale.discard(key.encode())
        chunk[key] = 1
        total += 1
        if len(chunk) == _CHUNK:
            client.mset(chunk)
            chunk.clear()
    if chunk:
        client.mset(chunk)
    if stale:
        client.delete(*stale)
    return total


def _key_prefix() -> str:
    return settings.EMAILAUTO.suppression.key_prefix


def _key(digest: bytes) -> str:
    return _key_prefix() + digest.hex()
