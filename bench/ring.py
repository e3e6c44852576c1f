"""`python -m bench.ring LANE`: wake a lane's workers for each line that comes in."""

import os
import sys

import django


def ring_lane(lane: str) -> None:
    """As whoever has put work there."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    from common.bell import ring

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _line in sys.stdin:
        ring(lane)


if __name__ == "__main__":
    ring_lane(sys.argv[1])
