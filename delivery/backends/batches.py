"""Calls that carry many mails, each with a body, headers and metadata of its own.

A mail is put as Anymail puts it; here it only gets company. What the answer says of one mail goes
through the same table as an answer to a call of its own (`verdicts.of_answer`). Mails it does not
mention may have been taken.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import requests

from delivery.backends.client import Request
from delivery.backends.http import as_json
from delivery.providers import Traits
from delivery.verdicts import Outcome, Verdict, of_answer, storable

_ODD = (
    *(msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError, StopIteration),
    RecursionError,
)
_NOT_MENTIONED = Verdict(Outcome.UNKNOWN, "the answer does not mention it")


@dataclass(frozen=True, slots=True)
class Part:
    """A mail on its way into a call: Anymail's payload, and of that the mail's own as JSON."""

    payload: Any
    body: bytes


class Batching:
    """How one provider takes many mails."""

    path = ""
    headers: Mapping[str, str] = {}
    answers_alike = False
    """What it says of a mail that is alone in its call is what it says of each of many."""

    def part(self, payload: Any) -> Part:
        """The mail as it will stand in the call."""
        return Part(payload, as_json(self.own(payload)))

    def own(self, payload: Any) -> Any:
        return payload.data

    def body(self, parts: Sequence[Part]) -> bytes:
        """Of the whole call."""
        return b"[" + b",".join(part.body for part in parts) + b"]"

    def request(self, parts: Sequence[Part], single: Request, api_url: str) -> Request:
        """The call; `single` is the one its first mail would have made alone."""
        headers = {**single.headers, **self.headers}
        return Request(api_url + self.path, headers, self.body(parts))

    def of_one(self, answer: requests.Response, traits: Traits) -> Verdict | None:
        """What is said of a mail that was alone in its call; None when Anymail has to be asked."""
        if not self.answers_alike or answer.status_code != 200:
            return None
        try:
            verdict = self.verdict(msgspec.json.decode(answer.content), traits)
        except _ODD:
            return None
        return verdict if verdict.outcome == Outcome.ACCEPTED else None

    def verdicts(
        self, answer: requests.Response, count: int, traits: Traits
    ) -> list[Verdict] | None:
        """For each mail, in the order of the call; None when the answer is about all of it."""
        if not self.is_about_each(answer):
            return None
        try:
            entries = self.entries(msgspec.json.decode(answer.content))
        except _ODD:
            entries = []  # taken, but nobody knows what of it
        if len(entries) != count:
            # Only its place says whose an entry is, and these may stand at anybody's.
            return [_NOT_MENTIONED] * count
        return [self._verdict(entry, traits) for entry in entries]

    def is_about_each(self, answer: requests.Response) -> bool:
        """Whether it tells of each mail, not of all of them together."""
        return 200 <= answer.status_code < 300

    def entries(self, told: Any) -> Sequence[Any]:
        """What a success says of each mail."""
        return list(told)

    def verdict(self, entry: Any, traits: Traits) -> Verdict:
        """What that means."""
        raise NotImplementedError

    def _verdict(self, entry: Any, traits: Traits) -> Verdict:
        try:
            return self.verdict(entry, traits)
        except _ODD:
            return _NOT_MENTIONED


class Postmark(Batching):
    """A list; so is the answer, with an `ErrorCode` for each, 0 for a mail that was taken.

    https://postmarkapp.com/developer/api/email-api#send-batch-emails
    """

    path = "email/batch"
    answers_alike = True

    def verdict(self, entry: Any, traits: Traits) -> Verdict:
        if entry.get("ErrorCode", 0) == 0:
            return _taken(entry["MessageID"])
        return of_answer(422, {}, _text(entry), traits)


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
        refused = {int(error["index"]): error for error in told.get("errors") or []}
        taken = iter(told["data"])
        count = len(told["data"]) + len(refused)
        return [refused.get(place) or next(taken) for place in range(count)]

    def verdict(self, entry: Any, traits: Traits) -> Verdict:
        return _taken(entry["id"]) if "id" in entry else of_answer(422, {}, _text(entry), traits)


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

    def of_one(self, answer: requests.Response, traits: Traits) -> Verdict | None:
        # Anymail takes whom a success does not name for somebody who was refused.
        if not super().is_about_each(answer):
            return None
        (verdict,) = self.verdicts(answer, 1, traits) or (_NOT_MENTIONED,)
        if verdict is _NOT_MENTIONED:
            return Verdict(Outcome.ACCEPTED, f"HTTP {answer.status_code}")
        return verdict

    def is_about_each(self, answer: requests.Response) -> bool:
        return super().is_about_each(answer) or (
            answer.status_code == 400 and _names_mails(answer.content)
        )

    def entries(self, told: Any) -> Sequence[Any]:
        return list(told["Messages"])

    def verdict(self, entry: Any, traits: Traits) -> Verdict:
        if entry["Status"] == "success":
            recipients = entry.get("To") or [{}]
            return _taken(str(recipients[0].get("MessageID", "")))
        if entry["Status"] != "error":
            return _NOT_MENTIONED
        first = next(iter(entry.get("Errors") or [{}]))
        return of_answer(int(first.get("StatusCode", 400)), {}, _text(entry), traits)


def _names_mails(content: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(content)["Messages"], list)
    except _ODD:
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

    def verdict(self, entry: Any, traits: Traits) -> Verdict:
        return _taken(entry)


BATCHINGS: Mapping[str, Batching] = {
    "delivery.backends.keyed.BrevoBackend": Brevo(),
    "delivery.backends.keyed.ResendBackend": Resend(),
    "anymail.backends.mailjet.EmailBackend": Mailjet(),
    "anymail.backends.postmark.EmailBackend": Postmark(),
}
"""By the backend of those that have a `Traits.batch`."""


def _taken(esp_id: object) -> Verdict:
    return Verdict(Outcome.ACCEPTED, esp_id=storable(esp_id))


def _text(entry: Any) -> str:
    return as_json(entry).decode()
