"""How fast providers are fed: token buckets that all workers share, one call for a whole batch."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from common.buckets import Bucket, LocalBuckets, draw

WITHIN_SECONDS = 1.0
"""A worker waits this long for its turn; longer waits are spent in the queue."""

# Without Redis nobody knows how many workers share the limit, so each takes this part of it.
_FALLBACK_SHARE = 0.1
_local = LocalBuckets()


def provider_bucket(provider: str, rate: float) -> Bucket:
    """A provider's `rate` per second; it holds one second's worth."""
    return Bucket(f"pace:{provider}", rate, max(rate, 1.0))


def mailbox_bucket(provider: str, domain: str, mailboxes: str, rate: float) -> Bucket:
    """What one mailbox provider takes of a sending domain through a provider."""
    return Bucket(f"pace:{provider}:{domain}:{mailboxes}", rate, max(rate, 1.0))


def take(draws: Sequence[Sequence[Bucket]]) -> list[float]:
    """For each message, which takes a token of each of its buckets, the seconds until it may
    leave. More than `WITHIN_SECONDS`: nothing was taken, and it should ask again by then.

    Redis lost: slower, never open.
    """
    try:
        return draw(draws, within=WITHIN_SECONDS)
    except RedisError:
        shares = [[_share(bucket) for bucket in of_one] for of_one in draws]
        return _local.draw(shares, within=WITHIN_SECONDS)


def _share(bucket: Bucket) -> Bucket:
    return Bucket(bucket.name, bucket.rate * _FALLBACK_SHARE, 1.0)
