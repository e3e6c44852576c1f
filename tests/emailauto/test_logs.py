"""A log line: ids yes, addresses no."""

import logging
import sys
from typing import Any

import pytest

from common.ids import uuid7
from common.signing import sign_uuid
from emailauto.logs import LineFormatter


def line(message: str, *args: Any, exc_info: Any = None, **extra: Any) -> str:
    record = logging.getLogger("shop").makeRecord(
        "shop", logging.WARNING, __file__, 1, message, args, exc_info, extra=extra
    )
    return LineFormatter().format(record)


def test_line_is_level_logger_message_and_extras() -> None:
    assert line("sent %d", 3, lane="events", id=7).endswith(" WARNING shop sent 3 lane=events id=7")


def test_payload_and_request_are_not_logged() -> None:
    assert line("x", data={"name": "Ada"}, request="<Ada>").endswith(" WARNING shop x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada@example.com", "***@***"),
        ("<Ada.L+x@Mail.Example.COM>", "<***@***>"),
        ("to:ada@example.com,bob@example.com;", "to:***@***,***@***;"),
        ("{'email': 'ada@example.com'}", "{'email': '***@***'}"),
        ("(email)=(ada@example.com) exists", "(email)=(***@***) exists"),
        ("用户@例子.公司", "***@***"),
        ("mailto:ada@example.com?subject=x", "mailto:***@***=x"),
        ("ada@localhost", "***@***"),
        ("no address", "no address"),
    ],
)
def test_address_in_the_message_its_arguments_or_an_extra_is_masked(text: str, shown: str) -> None:
    assert line(text).endswith(f" shop {shown}")
    assert line("%s", text).endswith(f" shop {shown}")
    assert line("x", note=text).endswith(f" shop x note={shown}")


def test_address_in_a_container_among_the_extras_is_masked() -> None:
    assert "example" not in line("x", to=["ada@example.com"], by={"email": "bob@example.com"})


def test_address_in_a_traceback_is_masked_and_the_rest_is_kept() -> None:
    try:
        try:
            raise ValueError("550 <ada@example.com>: unknown user")
        except ValueError as cause:
            raise RuntimeError("bob@example.com refused") from cause
    except RuntimeError:
        text = line("failed", exc_info=sys.exc_info(), id=7)
    head, *trace = text.splitlines()
    assert head.endswith(" shop failed id=7")
    assert "ValueError: 550 <***@***>: unknown user" in trace
    assert trace[-1] == "RuntimeError: ***@*** refused"
    assert __file__ in text


@pytest.mark.parametrize("path", ["/u/{}", "/p/{}", "/v/{}", "/t/c/{}", "/t/o/{}.gif"])
def test_token_of_a_link_is_masked(path: str) -> None:
    token = sign_uuid("unsubscribe", uuid7())
    text = line("Service Unavailable: %s", path.format(token))
    assert token[:20] not in text
    assert path.format("***") in text
    assert token[-20:] not in line("x", url=f"https://mail.example.com{path.format(token)}?x=1")


def test_other_paths_are_not_masked() -> None:
    path = "/admin/delivery/message/019ab000-0000-7000-8000-000000000001/change/"
    assert line(path).endswith(path)
