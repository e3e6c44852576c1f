"""Endpoints, deliveries and news for these tests."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F

from tests.factories import ContactFactory, MessageFactory
from tests.webhooks.outgoing.receiver import Receiver
from webhooks.models import EVERY_TYPE, OutgoingDelivery, OutgoingEndpoint
from webhooks.news import News
from webhooks.outgoing.sending import drain_deliveries
from webhooks.outgoing.services import give_secret

_numbers = itertools.count(1)
AT = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)


def make_endpoint(receiver: Receiver | None = None, **fields: Any) -> OutgoingEndpoint:
    """An endpoint; the receiver, if there is one, gets to know its secret."""
    url = receiver.url if receiver is not None else "https://consumer.example.com/hook"
    fields = {"name": f"endpoint {next(_numbers)}", "url": url, "types": [EVERY_TYPE], **fields}
    endpoint = OutgoingEndpoint(**fields)
    secret = give_secret(endpoint)
    endpoint.save()
    if receiver is not None:
        receiver.secret = secret
    return endpoint


def make_delivery(endpoint: OutgoingEndpoint, **fields: Any) -> OutgoingDelivery:
    return OutgoingDelivery.objects.create(
        **{
            "endpoint": endpoint,
            "event_id": f"event-{next(_numbers)}",
            "type": "email.opened",
            "body": '{"type":"email.opened"}',
            **fields,
        }
    )


def make_news(**fields: Any) -> News:
    kind = fields.pop("type", "email.bounced")
    data = fields.pop("data", {})
    ident = fields.pop("id", f"news-{next(_numbers)}")
    if "do_not_share" in fields:
        fields["contact"] = ContactFactory(do_not_share=fields.pop("do_not_share"))
    return News(ident, kind, AT, MessageFactory(state="sent", **fields), data)


def drain() -> None:
    while drain_deliveries(budget=10):
        pass


def make_due() -> None:
    """Let the time pass that deliveries and endpoints wait, and leases last."""
    long = timedelta(days=2)
    OutgoingDelivery.objects.update(due_at=F("due_at") - long, lease_until=F("lease_until") - long)
    OutgoingEndpoint.objects.update(resume_at=F("resume_at") - long)
