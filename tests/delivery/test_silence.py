"""E30: a provider that accepts and drops shows up in a report; nothing is sent again."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from delivery.engine import drain
from delivery.models import Bounce, Message, SandboxMail
from delivery.silence import silent
from tests.factories import MessageFactory, ProviderFactory

pytestmark = pytest.mark.django_db


def sent(hours: int, **fields: Any) -> Message:
    message = MessageFactory(state="sent", sent_at=Now(), **fields)
    Message.objects.filter(pk=message.pk).update(sent_at=Now() - timedelta(hours=hours))
    return message


def test_e30_mail_nobody_has_heard_of_for_a_day_is_reported_and_not_sent_again() -> None:
    telling = ProviderFactory(key="telling")
    sent(30, provider=telling, delivered_at=Now())
    lost = sent(30, provider=telling)
    sent(20, provider=telling)  # may still come
    sent(90, provider=telling)  # was reported long enough
    returned = sent(30, provider=telling)
    Bounce.objects.create(message=returned, bounce_class="soft", source="test")
    assert list(silent()) == [lost]
    drain("transactional", budget=2)
    assert not SandboxMail.objects.exists()
    lost.refresh_from_db()
    assert lost.state == "sent"


def test_provider_that_never_tells_is_not_reported() -> None:
    sent(30, provider=ProviderFactory(key="smtp"))
    assert list(silent()) == []
