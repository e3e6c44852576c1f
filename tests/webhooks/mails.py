"""Mails that a provider has taken, so that it has something to tell about."""

from typing import Any

from delivery.models import Message
from tests.factories import MessageFactory, TopicFactory
from tests.webhooks.cases import ESP_IDS

BY_ESP_ID = ("mailersend",)
"""Where nothing but the provider's own id tells the message, which has to be known by then."""


def sent_through(provider: str, **fields: Any) -> Message:
    """A marketing mail to ada@example.com, sent and to somebody who agreed to be watched unless
    `fields` say otherwise."""
    known = {"esp_id": ESP_IDS[provider]} if provider in BY_ESP_ID else {}
    message: Message = MessageFactory(
        contact__email="ada@example.com",
        stream="marketing",
        topic=TopicFactory(),
        **{"state": "sent", "contact__may_track": True, **known, **fields},
    )
    route = message.sender.provider
    route.backend = provider
    route.save()
    Message.objects.filter(pk=message.pk).update(provider=route)
    message.refresh_from_db()
    return message
