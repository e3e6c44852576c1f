"""How often one link may be used: far more than a person does, far less than a script can."""

import math
from uuid import UUID

from redis.exceptions import RedisError

from common.buckets import Bucket, LocalBuckets, draw

LOOKS = (1.0, 60.0)
"""Per second, and at once."""
ACTS = (1 / 30, 20.0)

# Without Redis each process counts for itself: a few times as many, and never open.
_local = LocalBuckets(start_full=True, most=10_000)


def seconds_to_wait(purpose: str, message_id: UUID, *, is_act: bool) -> int:
    """Count one use of a message's link for this purpose; 0 when it may be answered."""
    rate, burst = ACTS if is_act else LOOKS
    bucket = Bucket(f"page:{purpose}:{'act' if is_act else 'look'}:{message_id}", rate, burst)
    try:
        (wait,) = draw([[bucket]], within=0.0)
    except RedisError:
        (wait,) = _local.draw([[bucket]], within=0.0)
    return math.ceil(wait)
