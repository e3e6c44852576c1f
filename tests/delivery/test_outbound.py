"""What is written down of a hand-over."""

import pytest

from delivery.outbound import build_outbound
from tests.factories import MessageFactory, ProviderFactory, SenderFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("api_url", "shown"),
    [
        ("https://esp.example/api/", "at https://esp.example/api/:"),
        ("https://user:pass@esp.example/api", "at https://***@esp.example/api:"),
        ("https://user:p@ss@esp.example", "at https://***@esp.example:"),
        ("https://user:p/ss@esp.example", "at https://***@esp.example:"),
        ("user:pass@esp.example", "at ***@esp.example:"),
    ],
)
def test_what_was_asked_names_no_password(api_url: str, shown: str) -> None:
    sender = SenderFactory(provider=ProviderFactory(api_url=api_url))
    message = MessageFactory(sender=sender)
    outbound = build_outbound(
        message,
        sender=sender,
        provider=sender.provider,
        address="ada@example.com",
        has_metadata=False,
    )
    assert shown in outbound.in_words
    assert "pass" not in outbound.in_words
