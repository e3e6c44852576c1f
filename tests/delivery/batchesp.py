"""What providers answer to calls with many mails, and to the same mail alone."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from tests.delivery.fakeesp import SUCCESS, Answer
from tests.delivery.ledger import messages_in

KINDS = ("postmark", "resend", "mailjet", "brevo")
KEYED = ("resend", "brevo")
PATHS = {
    "postmark": "email/batch",
    "resend": "emails/batch",
    "mailjet": "send",
    "brevo": "smtp/email",
}
_REFUSALS: dict[str, Any] = {
    "postmark": {"ErrorCode": 406, "Message": "inactive"},
    "mailjet": {"Status": "error", "Errors": [{"ErrorCode": "mj-0013", "StatusCode": 400}]},
}


def mails_of(kind: str, call: Any) -> list[dict[str, Any]]:
    """The mails of a call, as it has them; one for a call that carries one alone."""
    if kind == "mailjet":
        return list(call["Messages"])
    if kind == "brevo":
        return list(call.get("messageVersions", [call]))
    return call if isinstance(call, list) else [call]


def is_many(kind: str, call: Any) -> bool:
    if kind == "mailjet":
        return "Globals" not in call
    return "messageVersions" in call if kind == "brevo" else isinstance(call, list)


def taking(kind: str, refused: Callable[[str], bool] = lambda _: False) -> Answer:
    """Takes all mails but those whose JSON is `refused`, and says so for each of them."""
    return Answer(judge=lambda body: _answer(kind, body, refused))


def refusing_all(kind: str, status: int, poison: Callable[[str], bool]) -> Answer:
    """Takes all mails of a call, or none when one of them is poison."""

    def judge(body: bytes) -> Answer:
        if any(poison(json.dumps(mail)) for mail in mails_of(kind, json.loads(body))):
            return Answer(status, {"message": "something is wrong with something"})
        return _answer(kind, body, lambda _: False)

    return Answer(judge=judge)


def _answer(kind: str, body: bytes, refused: Callable[[str], bool]) -> Answer:
    call = json.loads(body)
    mails = mails_of(kind, call)
    bad = [place for place, mail in enumerate(mails) if refused(json.dumps(mail))]
    but = frozenset(one for place in bad for one in _ids(mails[place]))
    if not is_many(kind, call):
        status, headers, text = SUCCESS[kind]
        return Answer(status, text, headers, takes=True)
    return Answer(200, _BODIES[kind](mails, bad), takes=True, but=but)


def _ids(mail: Any) -> set[UUID]:
    return messages_in(json.dumps(mail).encode())


def _postmark(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    return [
        _REFUSALS["postmark"]
        if place in bad
        else {"ErrorCode": 0, "Message": "OK", "MessageID": name_of(mail), "To": mail["To"]}
        for place, mail in enumerate(mails)
    ]


def _resend(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    taken = [{"id": name_of(mail)} for place, mail in enumerate(mails) if place not in bad]
    errors = [{"index": place, "message": "The `to` field is wrong."} for place in bad]
    return {"data": taken, "errors": errors} if errors else {"data": taken}


def _mailjet(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    entries = [
        _REFUSALS["mailjet"]
        if place in bad
        else {"Status": "success", "To": [{"Email": "", "MessageID": name_of(mail)}]}
        for place, mail in enumerate(mails)
    ]
    return {"Messages": entries}


def _brevo(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    return {"messageIds": [name_of(mail) for mail in mails]}


_BODIES = {"postmark": _postmark, "resend": _resend, "mailjet": _mailjet, "brevo": _brevo}


def name_of(mail: Any) -> str:
    """What the provider calls it: its recipient, so that a name at a wrong place is seen."""
    found = re.search(r"[\w.-]+@example\.com", json.dumps(mail["to" if "to" in mail else "To"]))
    assert found is not None
    return f"esp-{found[0]}"
