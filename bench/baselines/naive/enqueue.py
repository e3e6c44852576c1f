"""`python -m bench.baselines.naive.enqueue`: a task for each order in the table, as the request
that took the order would have put it."""

import django

from bench.baselines.naive.app import app


def main() -> None:
    """By one connection to the broker."""
    django.setup()
    from bench.baselines.naive.models import Order
    from bench.baselines.naive.tasks import receipt

    with app.producer_or_acquire() as producer:
        for pk in Order.objects.values_list("pk", flat=True).order_by("pk"):
            receipt.apply_async((pk,), producer=producer)


if __name__ == "__main__":
    main()
