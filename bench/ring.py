"""`python -m bench.ring LANE`: wait for a line, and wake a lane's workers."""

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
    sys.stdin.readline()
    ring(lane)


if __name__ == "__main__":
    ring_lane(sys.argv[1])
