"""Calls that carry many mails, each with a body, headers and metadata of its own.

A mail is put as Anymail puts it; here it only gets company. What the answer says of one mail goes
through the same table as an answer to a call of its own (`verdicts.of_answer`). Mails it does not
mention may have been taken. Whose an entry is its place says, and where the provider names the
recipient, that has to agree; Resend, Brevo and SES name nobody. Each provider's way: `batches`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

import msgspec
import requests

from common.addresses import InvalidAddress, parse_address
from delivery.backends.client import Request
from delivery.backends.http import as_json
from delivery.providers import Traits
from delivery.verdicts import Outcome, Verdict, of_answer, storable

ODD = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    StopIteration,
    RecursionError,
    msgspec.DecodeError,
)
"""What is raised by looking into an answer that is not of the documented shape."""
NOT_MENTIONED = Verdict(Outcome.UNKNOWN, "the answer does not mention it")


@dataclass(frozen=True, slots=True)
class Part:
    """A mail on its way into a call: Anymail's payload, whom it is to, and of the payload the
    mail's own as JSON; empty for a mail that goes alone."""

    payload: Any
    address: str
    body: bytes = b""


class Batching:
    """How one provider takes many mails."""

    path = ""
    headers: Mapping[str, str] = {}
    answers_alike = False
    """What it says of a mail that is alone in its call is what it says of each of many."""

    def part(self, payload: Any, address: str) -> Part:
        """The mail as it will stand in the call."""
        return Part(payload, address, as_json(self.own(payload)))

    def that_fit(self, parts: Sequence[Part], most_bytes: int) -> int:
        """How many of the first of them one call may carry, at least one."""
        # What the parts have in common takes less than one of them.
        room = most_bytes - max(len(part.body) for part in parts)
        count = 0
        while count < len(parts) and room >= len(parts[count].body) + 1:
            room -= len(parts[count].body) + 1
            count += 1
        return max(count, 1)

    def own(self, payload: Any) -> Any:
        return payload.data

    def body(self, parts: Sequence[Part]) -> bytes:
        """Of the whole call."""
        return b"[" + b",".join(part.body for part in parts) + b"]"

    def request(self, parts: Sequence[Part], single: Request, api_url: str) -> Request:
        """The call; `single` is the one its first mail would have made alone."""
        headers = {**single.headers, **self.headers}
        return Request(api_url + self.path, headers, self.body(parts))

    def of_answer_to_one(self, answer: requests.Response, traits: Traits) -> Verdict | None:
        """What is said of a mail that was alone in its call; None when Anymail has to be asked."""
        if not self.answers_alike or answer.status_code != 200:
            return None
        try:
            verdict = self.of_entry(msgspec.json.decode(answer.content), traits)
        except ODD:
            return None
        return verdict if verdict.outcome == Outcome.ACCEPTED else None

    def of_answer_to_many(
        self, answer: requests.Response, parts: Sequence[Part], traits: Traits
    ) -> list[Verdict] | None:
        """For each mail, in the order of the call, which is that of the parts; None when the
        answer is about all of it."""
        if not self.is_about_each(answer):
            return None
        entries = self.entries_of(answer)
        if len(entries) != len(parts):
            # Only its place says whose an entry is, and these may stand at anybody's.
            return [NOT_MENTIONED] * len(parts)
        named = [self._names(e, part.address) for e, part in zip(entries, parts, strict=True)]
        # With somebody at another's place, those that name nobody may be anybody's, too.
        is_in_order = False not in named
        return [
            self.of_any_entry(entry, traits) if is_named or is_in_order else NOT_MENTIONED
            for entry, is_named in zip(entries, named, strict=True)
        ]

    def is_about_each(self, answer: requests.Response) -> bool:
        """Whether it tells of each mail, not of all of them together."""
        return 200 <= answer.status_code < 300

    def entries(self, told: Any) -> Sequence[Any]:
        """What a success says of each mail."""
        return list(told)

    def recipient(self, entry: Any) -> str:
        """Whom that names; empty: nobody."""
        return ""

    def of_entry(self, entry: Any, traits: Traits) -> Verdict:
        """What that means; raises one of `ODD` when it is of another shape."""
        raise NotImplementedError

    def entries_of(self, answer: requests.Response) -> Sequence[Any]:
        """What a success says of each mail; nothing when that cannot be read."""
        try:
            return self.entries(msgspec.json.decode(answer.content))
        except ODD:
            return []  # taken, but nobody knows what of it

    def _names(self, entry: Any, asked: str) -> bool | None:
        """Whether it names the one who was `asked` for; None when it names nobody."""
        try:
            named = self.recipient(entry)
            return _is_same(named, asked) if named else None
        except ODD:
            return None

    def of_any_entry(self, entry: Any, traits: Traits) -> Verdict:
        """What an entry means, of whatever shape it is."""
        try:
            return self.of_entry(entry, traits)
        except ODD:
            return NOT_MENTIONED


def taken(esp_id: object) -> Verdict:
    """The provider has the mail, and calls it so."""
    return Verdict(Outcome.ACCEPTED, esp_id=storable(esp_id))


def refused(status: int, entry: Any, traits: Traits) -> Verdict:
    """As if the entry were the body of an answer with this HTTP status; whatever that is, it does
    not say that the mail was taken."""
    verdict = of_answer(status, {}, as_json(entry).decode(), traits)
    return verdict if verdict.outcome != Outcome.ACCEPTED else NOT_MENTIONED


def _is_same(named: str, asked: str) -> bool:
    """However the provider spells the address: in another case, with a name, its domain in
    Unicode."""
    if named == asked:
        return True
    try:
        return parse_address(parseaddr(named)[1]).normalized == parse_address(asked).normalized
    except InvalidAddress:
        return False
