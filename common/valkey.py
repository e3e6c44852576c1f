"""This process's client of Redis, or Valkey, and the scripts it has registered there."""

from functools import cache

import redis
from django.conf import settings
from redis.asyncio import Redis as AsyncRedis
from redis.commands.core import Script


@cache
def redis_client() -> redis.Redis:
    """The shared client; every call ends within about 0.2 s."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=0.2,
        socket_connect_timeout=0.2,
        health_check_interval=30,
    )


def loop_client() -> AsyncRedis:
    """A client for one event loop, with the same patience; whose loop it is closes it."""
    return AsyncRedis.from_url(
        settings.REDIS_URL, socket_timeout=0.2, socket_connect_timeout=0.2, health_check_interval=30
    )


@cache
def script(source: str) -> Script:
    """A Lua script, sent by its hash."""
    return redis_client().register_script(source)


def forget_client() -> None:
    """For a process whose Redis has moved."""
    redis_client.cache_clear()
    script.cache_clear()
