"""How providers take many mails in one call as a list of them; see `batching`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import requests

from delivery.backends.batching import NOT_MENTIONED, ODD, Batching, Part, refused, taken
from delivery.backends.client import Request
from delivery.backends.http import as_json
from delivery.providers import Traits
from delivery.verdicts import Verdict


class Postmark(Batching):
    """A list; so is the answer, with an `ErrorCode` for each, 0 for a mail that was taken.

    https://postmarkapp.com/developer/api/email-api#send-batch-emails
    """

    path = "email/batch"
    answers_alike = True

    def recipient(self, entry: Any) -> str:
        return entry.get("To") or ""

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        if entry.get("ErrorCode", 0) == 0:
            return taken(entry["MessageID"])
        return refused(422, entry, traits)


class Resend(Batching):
    """A list; the answer has the ids of those taken and the places of those that were not.

    The key is of the mails' bodies, so that the same mails make the same call.
    https://resend.com/docs/api-reference/emails/send-batch-emails
    """

    path = "emails/batch"
    answers_alike = True
    headers = {"x-batch-validation": "permissive"}

    def request(self, parts: Sequence[Part], single: Request, api_url: str) -> Request:
        request = super().request(parts, single, api_url)
        key = f"batch/{hashlib.sha256(request.body).hexdigest()}"
        return replace(request, headers={**request.headers, "Idempotency-Key": key})

    def entries(self, told: Any) -> Sequence[Any]:
        refused = {int(error["index"]): _Error(error) for error in told.get("errors") or []}
        taken = iter(told["data"])
        count = len(told["data"]) + len(refused)
        return [refused.get(place) or next(taken) for place in range(count)]

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        if isinstance(entry, _Error):
            return refused(422, entry.told, traits)
        # Without an id its acceptance is not believed.
        return taken(entry["id"]) if entry["id"] else NOT_MENTIONED


@dataclass(frozen=True, slots=True)
class _Error:
    """What Resend says of a mail that it did not take."""

    told: Any


class Mailjet(Batching):
    """`Messages`, each with what Anymail has put into `Globals`; so is the answer, which is a 400
    when one of them was not taken.

    https://dev.mailjet.com/email/guides/send-api-v31/
    """

    path = "send"

    def own(self, payload: Any) -> Any:
        (message,) = payload.data["Messages"]
        return {**payload.data["Globals"], **message}

    def body(self, parts: Sequence[Part]) -> bytes:
        return b'{"Messages":' + super().body(parts) + b"}"

    def of_answer_to_one(self, answer: requests.Response, traits: Traits) -> Verdict | None:
        # Anymail takes whom a success does not name for somebody who was refused.
        if not super().is_about_each(answer):
            return None
        entries = self.entries_of(answer)
        return self.of_any_entry(entries[0], traits) if len(entries) == 1 else NOT_MENTIONED

    def is_about_each(self, answer: requests.Response) -> bool:
        return super().is_about_each(answer) or (
            answer.status_code == 400 and _may_name_mails(answer.content)
        )

    def entries(self, told: Any) -> Sequence[Any]:
        return list(told["Messages"])

    def recipient(self, entry: Any) -> str:
        return _first_recipient(entry).get("Email") or ""

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        if entry["Status"] == "success":
            return taken(str(_first_recipient(entry).get("MessageID", "")))
        if entry["Status"] != "error":
            return NOT_MENTIONED
        first = next(iter(entry.get("Errors") or [{}]))
        return refused(int(first.get("StatusCode", 400)), entry, traits)


def _first_recipient(entry: Any) -> Any:
    return (entry.get("To") or [{}])[0]


def _may_name_mails(content: bytes) -> bool:
    """Whether it tells of each mail, or would if it had not ended too soon: then some of them may
    have been taken, and none is offered again."""
    try:
        return isinstance(msgspec.json.decode(content)["Messages"], list)
    except msgspec.DecodeError:
        return content.lstrip()[:1] in (b"", b"{")
    except ODD:
        return False


class Brevo(Batching):
    """`messageVersions` of one mail, each with headers, subject and bodies of its own; the answer
    has their ids, or is about all of them.

    https://developers.brevo.com/docs/batch-send-transactional-emails
    """

    path = "smtp/email"
    _OWN = ("to", "replyTo", "subject", "htmlContent", "textContent", "headers")

    def own(self, payload: Any) -> Any:
        version = {name: payload.data[name] for name in self._OWN if name in payload.data}
        headers = dict(version.get("headers", {}))
        # Of the whole call there; see `body`.
        headers.pop("idempotencyKey", None)
        return {**version, "headers": headers}

    def body(self, parts: Sequence[Part]) -> bytes:
        versions = super().body(parts)
        first = parts[0].payload.data
        shared = {name: value for name, value in first.items() if name not in self._OWN}
        # The last tag is the first mail's own, see `keyed`.
        shared["tags"] = first["tags"][:-1]
        # A UUID is asked for, and the same for the same mails.
        key = hashlib.sha256(versions).hexdigest()[:32]
        shared["headers"] = {
            "idempotencyKey": f"{key[:8]}-{key[8:12]}-4{key[13:16]}-a{key[17:20]}-{key[20:]}"
        }
        # What it wants to see, and does not use.
        shared |= {name: first[name] for name in ("subject", "htmlContent") if name in first}
        if not shared["tags"]:
            del shared["tags"]
        return as_json(shared)[:-1] + b',"messageVersions":' + versions + b"}"

    def entries(self, told: Any) -> Sequence[Any]:
        return list(told["messageIds"])

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        return taken(entry)
