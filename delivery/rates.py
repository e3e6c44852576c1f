"""What can be said of a rate that has been seen a few times only."""

import math

_Z = 1.96


def at_least(count: int, total: int) -> float:
    """The lower bound of the rate `count / total` at 95 % (Wilson's score interval)."""
    if not total:
        return 0.0
    rate, z2 = min(1.0, count / total), _Z * _Z
    spread = _Z * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total * total))
    return max(0.0, (rate + z2 / (2 * total) - spread) / (1 + z2 / total))
