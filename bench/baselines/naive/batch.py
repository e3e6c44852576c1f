"""`python -m bench.baselines.naive.batch`: what cron would run. Prints how many seconds the sending
took, without the start of the process."""

import os
import sys
import time

import django


def main() -> None:
    """Whatever is due, one after the other, by one connection that stays open."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.baselines.naive.settings"
    django.setup()
    from django.core.mail import get_connection

    from bench.baselines.naive.mails import send_receipt
    from bench.baselines.naive.models import Order

    started = time.monotonic()
    with get_connection() as connection:
        for order in Order.objects.filter(sent_at=None).order_by("pk").iterator():
            send_receipt(order, connection)
    sys.stdout.write(f"{time.monotonic() - started}\n")


if __name__ == "__main__":
    main()
