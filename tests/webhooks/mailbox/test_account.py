"""The URL of the bounce mailbox, its policy, and what the system checks say about them."""

from typing import Any

import pytest

from webhooks.mailbox.account import Account, MailboxError, Security, account_of, folder_after
from webhooks.mailbox.checks import (
    check_bounce_addresses,
    check_bounce_mailbox,
    check_bounces_come_back,
)

SECRET = "hunter2secret"
URL = f"imaps://user%40example.com:{SECRET}%2F@imap.example.com/Mail%20in"


@pytest.fixture(autouse=True)
def _nothing_is_set_up(settings: Any) -> None:
    settings.BOUNCE_MAILBOX_URL = settings.BOUNCE_ADDRESS = settings.UNSUBSCRIBE_ADDRESS = ""
    settings.BOUNCE_MAILBOX_AFTER = "move:Processed"
    settings.EMAIL_URL = ""


def test_url_is_read() -> None:
    account = account_of(URL)
    assert account == Account(
        Security.TLS, "imap.example.com", 993, "user@example.com", f"{SECRET}/", "Mail in"
    )
    assert SECRET not in repr(account)
    assert "user@" not in repr(account)


@pytest.mark.parametrize(
    ("url", "security", "port", "folder"),
    [
        ("imaps://u:p@h", Security.TLS, 993, "INBOX"),
        ("imaps://u:p@h:1993/", Security.TLS, 1993, "INBOX"),
        ("imap+tls://u:p@h/INBOX/bounces", Security.STARTTLS, 143, "INBOX/bounces"),
        ("imap://u:p@127.0.0.1", Security.NONE, 143, "INBOX"),
        ("imap://u:p@[::1]:1143", Security.NONE, 1143, "INBOX"),
    ],
)
def test_scheme_says_how_it_is_protected(
    url: str, security: Security, port: int, folder: str
) -> None:
    account = account_of(url)
    assert (account.security, account.port, account.folder) == (security, port, folder)


@pytest.mark.parametrize(
    "url",
    [
        f"imap://user:{SECRET}@imap.example.com/INBOX",
        f"pop3://user:{SECRET}@imap.example.com",
        f"imaps://user:{SECRET}@imap.example.com:port",
        f"imaps://:{SECRET}@imap.example.com",
        f"imaps://{SECRET}@imap.example.com",
        f"imaps://user:{SECRET}@/INBOX",
        f"imaps://user:{SECRET}#2@imap.example.com",
        f"imaps://user:{SECRET}@imap.example.com/INBOX?x=1",
        f"imaps://user:{SECRET}@imap.example.com/Entwürfe",
        f"imaps://user:{SECRET}@imap.example.com/a%0D%0Ab",
        f"{SECRET}",
    ],
)
def test_url_that_leads_nowhere_is_an_error_that_does_not_show_it(settings: Any, url: str) -> None:
    settings.BOUNCE_MAILBOX_URL = url
    (message,) = check_bounce_mailbox(None)
    assert message.id == "webhooks.E005"
    assert SECRET not in message.msg + str(message.hint)
    with pytest.raises(MailboxError):
        account_of(url)


@pytest.mark.parametrize(
    ("policy", "folder"),
    [("delete", None), ("move:Processed", "Processed"), ("move: Old mail ", "Old mail")],
)
def test_policy_is_read(policy: str, folder: str | None) -> None:
    assert folder_after(policy, account_of(URL)) == folder


@pytest.mark.parametrize("policy", ["", "keep", "move:", "move:Mail in", "move:Müll", "Delete"])
def test_policy_that_is_none_is_an_error(settings: Any, policy: str) -> None:
    settings.BOUNCE_MAILBOX_URL, settings.BOUNCE_MAILBOX_AFTER = URL, policy
    assert [message.id for message in check_bounce_mailbox(None)] == ["webhooks.E006"]


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({}, []),
        ({"BOUNCE_ADDRESS": "bounces@mail.example.com"}, []),
        ({"BOUNCE_ADDRESS": "bounces"}, ["webhooks.E007"]),
        ({"BOUNCE_ADDRESS": "b" * 24 + "@mail.example.com"}, ["webhooks.E007"]),
        ({"BOUNCE_ADDRESS": "b" * 23 + "@mail.example.com"}, []),
        ({"BOUNCE_ADDRESS": "rückläufer@mail.example.com"}, ["webhooks.E007"]),
        ({"UNSUBSCRIBE_ADDRESS": "unsub@mail.example.com"}, ["webhooks.E008"]),
        ({"UNSUBSCRIBE_ADDRESS": "unsub@mail.example.com", "BOUNCE_MAILBOX_URL": URL}, []),
    ],
)
def test_addresses_are_checked(settings: Any, fields: dict[str, str], ids: list[str]) -> None:
    for name, text in fields.items():
        setattr(settings, name, text)
    assert [message.id for message in check_bounce_addresses(None)] == ids


@pytest.mark.parametrize(
    ("smtp", "address", "mailbox", "warns"),
    [
        ("", "", "", False),
        ("smtp://127.0.0.1", "", "", True),
        ("smtp://127.0.0.1", "bounces@mail.example.com", "", True),
        ("smtp://127.0.0.1", "", URL, True),
        ("smtp://127.0.0.1", "bounces@mail.example.com", URL, False),
        ("", "bounces@mail.example.com", "", True),
    ],
)
def test_bounces_that_come_back_to_nobody_are_told(
    settings: Any, smtp: str, address: str, mailbox: str, warns: bool
) -> None:
    settings.EMAIL_URL, settings.BOUNCE_ADDRESS, settings.BOUNCE_MAILBOX_URL = (
        smtp,
        address,
        mailbox,
    )
    found = [message.id for message in check_bounces_come_back(None)]
    assert found == (["webhooks.W003"] if warns else [])
