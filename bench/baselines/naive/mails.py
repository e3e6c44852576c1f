"""The mail of an order."""

from anymail.message import AnymailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string
from django.utils import timezone

from bench.baselines.naive.models import Order


def send_receipt(order: Order, connection: BaseEmailBackend | None = None) -> None:
    """Render it, send it, note that it is sent. Without a connection it opens its own."""
    context = {"name": order.name, "number": order.number}
    mail = AnymailMessage(
        render_to_string("receipt.subject", context).strip(),
        render_to_string("receipt.txt", context),
        to=[order.email],
        headers={"Auto-Submitted": "auto-generated"},
        connection=connection,
    )
    mail.attach_alternative(render_to_string("receipt.html", context), "text/html")
    mail.send()
    order.sent_at = timezone.now()
    order.save(update_fields=["sent_at"])
