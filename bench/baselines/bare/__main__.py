"""`python -m bench.baselines.bare`: import Django and Celery, say `ready`, and wait for the end of
stdin.

Both import next to nothing by their names alone. This is what a worker needs of them whatever its
tasks do: Django set up with its ORM and PostgreSQL, Celery's worker and its pool with Redis.
"""

import sys
from importlib import import_module

import django

from bench.baselines.bare.app import app

_NEEDED = (
    *("django.db.models", "django.db.backends.postgresql.base"),
    *("celery.bin.celery", "celery.worker.worker", "celery.concurrency.prefork"),
    "kombu.transport.redis",
)

if __name__ == "__main__":
    django.setup()
    for name in _NEEDED:
        import_module(name)
    app.finalize()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
