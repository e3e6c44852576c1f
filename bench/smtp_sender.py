"""`python -m bench.smtp_sender WHO PORT COUNT`: hand COUNT mails over to the SMTP server on PORT,
by one connection that is open already, and print the seconds.

WHO is `emailauto`: as a delivery worker does, in batches, with the journal; or `django`: Django's
own SMTP backend, which is given all of them at once. The mails are made before the clock starts.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import django
from django.core.mail import EmailMultiAlternatives, get_connection

if TYPE_CHECKING:
    from delivery.models import Provider
    from delivery.turns import Departed, Handed

_BATCH = 50
_TEXT = "Hello Ada,\n\nyour order 00000042 is on its way. " + "It will be there soon. " * 40
_HTML = f"<html><body><h1>Hello Ada</h1>{'<p>It will be there soon.</p>' * 100}</body></html>"


def by_django(port: int, count: int) -> float:
    """One connection, one call."""
    backend = get_connection(
        "django.core.mail.backends.smtp.EmailBackend", host="127.0.0.1", port=port
    )
    mails = [
        EmailMultiAlternatives(
            "Your order", _TEXT, "shop@example.com", [f"django-{number}@example.com"]
        )
        for number in range(count)
    ]
    for mail in mails:
        mail.attach_alternative(_HTML, "text/html")
    backend.open()
    started = time.monotonic()
    sent = backend.send_messages(mails)
    seconds = time.monotonic() - started
    backend.close()
    assert sent == count
    return seconds


def by_emailauto(port: int, count: int) -> float:
    """What stands between the commit that promises a batch and the one that records it."""
    from common.ids import uuid7
    from delivery.connections import pool
    from delivery.handover import hand_over
    from delivery.journal import close_journal, open_journal
    from delivery.models import Provider
    from delivery.providers import Traits
    from delivery.routes import SMTP, Route, Routes
    from delivery.verdicts import Outcome

    provider = Provider(id=1, key="bench")
    route = Route(Traits(SMTP), {"host": "127.0.0.1", "port": port, "username": "", "password": ""})
    routes = Routes({provider.pk: route})
    departed = _departed(provider, [uuid7() for _ in range(count)])
    with pool.borrow(provider.key, route) as connection:
        connection.open()
    started = time.monotonic()
    for start in range(0, count, _BATCH):
        journal = open_journal(uuid7())
        assert journal is not None  # there is a Redis
        batch = departed[start : start + _BATCH]
        handed: list[Handed] = []
        hand_over(batch, routes, journal, lambda: lambda _: False, handed.extend)
        assert [h.verdict.outcome for h in handed] == [Outcome.ACCEPTED] * len(batch)
        close_journal(journal)
    seconds = time.monotonic() - started
    pool.close()
    return seconds


def _departed(provider: "Provider", ids: Sequence[UUID]) -> "list[Departed]":
    from delivery import mime
    from delivery.models import Message, Sender
    from delivery.outbound import Outbound, OutboundEmail
    from delivery.turns import Departed

    sender = Sender(name="Shop", email="shop@example.com", provider=provider)
    departed = []
    for number, pk in enumerate(ids):
        address = f"emailauto-{number}@example.com"
        email = OutboundEmail("Your order", _TEXT, sender.email, [address])
        headers = [("From", sender.email), ("To", address), ("Subject", "Your order")]
        email.wire = mime.alternative(headers, text=_TEXT, html=_HTML, token=pk.hex)
        email.envelope = (sender.email, address)
        outbound = Outbound(Message(pk=pk), provider, sender, email)
        departed.append(Departed(outbound, 1, 0.0))
    return departed


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    who, port, count = sys.argv[1:]
    send = {"emailauto": by_emailauto, "django": by_django}[who]
    sys.stdout.write(f"{send(int(port), int(count))}\n")
