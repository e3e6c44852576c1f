"""Mails as they come into a bounce mailbox, written for these tests after what each system sends.

In the files stand `%TOKEN%`, the token of the message's return path, `%MESSAGE_ID%`, its
Message-ID, `%FORGED_TOKEN%` and `%FORGED_ID%`, which look like them, and `%UNSUBSCRIBE%`, the token
of its List-Unsubscribe address.
"""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from common.signing import sign_uuid_caseless
from delivery.headers import message_id
from delivery.return_paths import RETURN_PATH, UNSUBSCRIBE_MAIL

HERE = Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "expected.yaml").read_text("utf-8"))


def mail(name: str, message: UUID) -> bytes:
    """The mail of that name about this message, as it comes over IMAP."""
    token = sign_uuid_caseless(RETURN_PATH, message)
    own_id = message_id(message, "shop.example.com").strip("<>")
    words = {
        "%TOKEN%": token,
        "%TOKEN_IN_CAPITALS%": token.upper(),
        "%MESSAGE_ID%": own_id,
        "%FORGED_TOKEN%": token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb"),
        "%FORGED_ID%": f"{message}.00000000@shop.example.com",
        "%UNSUBSCRIBE%": sign_uuid_caseless(UNSUBSCRIBE_MAIL, message),
    }
    raw = re.sub(rb"\r?\n", b"\r\n", (HERE / f"{name}.eml").read_bytes())
    for word, text in words.items():
        raw = raw.replace(word.encode(), text.encode())
    return raw


def bounce_of(message: UUID) -> bytes:
    """A server's notification that the address of this message does not exist."""
    return mail("postfix-unknown-user", message)
