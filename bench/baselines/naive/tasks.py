"""A task for each mail."""

from celery import shared_task

from bench.baselines.naive.mails import send_receipt
from bench.baselines.naive.models import Order


@shared_task(name="naive.receipt")
def receipt(order_id: int) -> None:
    """Unless it is sent already."""
    order = Order.objects.get(pk=order_id)
    if order.sent_at is None:
        send_receipt(order)
