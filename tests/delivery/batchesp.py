"""What providers answer to calls with many mails, and to the same mail alone."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from tests.delivery.fakeesp import SUCCESS, Answer, call_in
from tests.delivery.ledger import messages_in

KINDS = ("postmark", "resend", "mailjet", "brevo", "sendgrid", "mailgun", "ses")
KEYED = ("resend", "brevo")
# One mail with fields, and each recipient's values.
MERGING = ("sendgrid", "mailgun", "ses")
# Their answers say nothing of each mail: they have taken all or none.
ALL_OR_NONE = ("sendgrid", "mailgun")
PATHS = {
    "postmark": "email/batch",
    "resend": "emails/batch",
    "mailjet": "send",
    "brevo": "smtp/email",
    "sendgrid": "mail/send",
    "mailgun": "shop.example/messages",
    "ses": "v2/email/outbound-bulk-emails",
}
# https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
_SOMEBODY_TWICE = {
    "errors": [
        {
            "message": "Each unique email address in the personalizations array should only be "
            "included once.",
            "field": "personalizations",
        }
    ]
}
_REFUSALS: dict[str, Any] = {
    "postmark": {"ErrorCode": 406, "Message": "inactive"},
    "ses": {"Status": "MESSAGE_REJECTED", "Error": "There is a virus in it."},
    "mailjet": {"Status": "error", "Errors": [{"ErrorCode": "mj-0013", "StatusCode": 400}]},
}


def mails_of(kind: str, call: Any) -> list[dict[str, Any]]:
    """The mails of a call, as it has them; one for a call that carries one alone."""
    if kind == "mailjet":
        return list(call["Messages"])
    if kind == "brevo":
        return list(call.get("messageVersions", [call]))
    if kind == "sendgrid":
        return [_merged(call, one) for one in call["personalizations"]]
    if kind == "mailgun":
        return _filled(call)
    if kind == "ses" and "BulkEmailEntries" in call:
        return [_templated(call, entry) for entry in call["BulkEmailEntries"]]
    return call if isinstance(call, list) else [call]


def _merged(call: Any, one: Any) -> dict[str, Any]:
    """The mail as its recipient gets it."""
    if "content" not in call:
        return dict(one)
    values = [entry["value"] for entry in call["content"]]
    fields = one.get("substitutions", {})
    for field, own in fields.items():
        assert sum(value.count(field) for value in values) == 1
        values = [value.replace(field, own) for value in values]
    size = sum(len(field) + len(own.encode()) for field, own in fields.items())
    assert size <= 10_000
    content = dict(zip((entry["type"] for entry in call["content"]), values, strict=True))
    shared = {name: call[name] for name in ("categories", "subject", "headers") if name in call}
    rest = {name: value for name, value in one.items() if name != "substitutions"}
    arguments = {**call.get("custom_args", {}), **one.get("custom_args", {})}
    return {**shared, **rest, "custom_args": arguments, "content": content}


def _filled(form: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The mails as Mailgun makes them of a form: every variable in it, wherever it stands, is the
    recipient's value of it."""
    (variables,) = map(json.loads, form.get("recipient-variables", ["{}"]))
    addresses = form["to"]
    assert len(addresses) == len({address.lower() for address in addresses})
    assert not variables or set(variables) == set(addresses)
    fixed = {name: texts for name, texts in form.items() if name != "recipient-variables"}
    mails = []
    for address in addresses:

        def value(found: re.Match[str], whose: str = address) -> str:
            # Without any it fills nothing.
            return str(variables[whose][found[1]]) if variables else found[0]

        pattern = re.compile(r"%recipient\.(\w+)%")
        mail: dict[str, Any] = {
            name: [pattern.sub(value, text) for text in texts] for name, texts in fixed.items()
        }
        mails.append({**mail, "to": [address]})
    return mails


def _templated(call: Any, entry: Any) -> dict[str, Any]:
    """The mail as SES makes it: in one pass, without escaping."""
    replacement = entry["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"]
    values = json.loads(replacement)
    assert len(replacement) <= 262_144
    headers = {header["Name"]: header["Value"] for header in entry["ReplacementHeaders"]}
    assert len(headers) == len(entry["ReplacementHeaders"]) <= 15
    for name, value in headers.items():
        assert re.fullmatch(r"[!-9;-@A-~]{1,126}", name)
        assert re.fullmatch(r"[ -~]{1,995}", value)
    words = {}
    for name, text in call["DefaultContent"]["Template"]["TemplateContent"].items():
        # Whatever else begins with two braces, or has an odd neighbour, would be an error there.
        assert text.count("{{") == len(re.findall(r"(?<![{\\\\])\{\{f\w+\}\}(?!\})", text))
        words[name] = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)
    return {"to": entry["Destination"]["ToAddresses"], "headers": headers, **words}


def is_many(kind: str, call: Any) -> bool:
    if kind == "mailjet":
        return "Globals" not in call
    if kind in ("mailgun", "ses"):
        return ("recipient-variables" if kind == "mailgun" else "BulkEmailEntries") in call
    if kind == "sendgrid":
        return any("substitutions" in one for one in call["personalizations"])
    return "messageVersions" in call if kind == "brevo" else isinstance(call, list)


def taking(kind: str, refused: Callable[[str], bool] = lambda _: False) -> Answer:
    """Takes all mails but those whose JSON is `refused`, and says so for each of them."""
    return Answer(judge=lambda body: _answer(kind, body, refused))


def refusing_all(kind: str, status: int, poison: Callable[[str], bool]) -> Answer:
    """Takes all mails of a call, or none when one of them is poison."""

    def judge(body: bytes) -> Answer:
        if any(poison(json.dumps(mail)) for mail in mails_of(kind, call_in(body))):
            return Answer(status, {"message": "something is wrong with something"})
        return _answer(kind, body, lambda _: False)

    return Answer(judge=judge)


def _answer(kind: str, body: bytes, refused: Callable[[str], bool]) -> Answer:
    call = call_in(body)
    mails = mails_of(kind, call)
    bad = [place for place, mail in enumerate(mails) if refused(json.dumps(mail))]
    but = frozenset(one for place in bad for one in _ids(mails[place]))
    if kind == "sendgrid" and len(mails) > len({name_of(mail).lower() for mail in mails}):
        return Answer(400, _SOMEBODY_TWICE)
    if not is_many(kind, call) or kind in ALL_OR_NONE:
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
        else {
            "Status": "success",
            "To": [{"Email": mail["To"][0]["Email"], "MessageID": name_of(mail)}],
        }
        for place, mail in enumerate(mails)
    ]
    return {"Messages": entries}


def _brevo(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    return {"messageIds": [name_of(mail) for mail in mails]}


def _ses(mails: Sequence[Any], bad: Sequence[int]) -> Any:
    entries = [
        _REFUSALS["ses"] if place in bad else {"Status": "SUCCESS", "MessageId": name_of(mail)}
        for place, mail in enumerate(mails)
    ]
    return {"BulkEmailEntryResults": entries}


_BODIES = {
    "ses": _ses,
    "postmark": _postmark,
    "resend": _resend,
    "mailjet": _mailjet,
    "brevo": _brevo,
}


def name_of(mail: Any) -> str:
    """What the provider calls it: its recipient, so that a name at a wrong place is seen."""
    found = re.search(r"[\w.-]+@example\.com", json.dumps(mail["to" if "to" in mail else "To"]))
    assert found is not None
    return f"esp-{found[0]}"
