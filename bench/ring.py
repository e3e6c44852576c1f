"""`python -m bench.ring LANE`: wake a lane's workers, and print the database's time just before."""

import os
import sys

import django


def ring_lane(lane: str) -> str:
    """The moment from which on the workers know."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    from common.bell import ring
    from common.postgres import database_time

    moment = database_time()
    ring(lane)
    return moment.isoformat()


if __name__ == "__main__":
    sys.stdout.write(ring_lane(sys.argv[1]))
