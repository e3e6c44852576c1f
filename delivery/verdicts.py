"""What a hand-over's outcome means. Pure: exceptions and answers in, `Verdict` out.

The heart of "at most once": only an outcome that *proves* the provider did not take the message
may be tried again. Whatever is not understood is `UNKNOWN`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from anymail.exceptions import AnymailError, AnymailRecipientsRefused, AnymailRequestsAPIError

from delivery.bounces import FOR_GOOD, BounceClass, classify_reply, not_hard
from delivery.providers import STATUSES, Answer, Meaning, Traits

MIN_RETRY_AFTER = 1.0
MAX_RETRY_AFTER = 3_600.0
_CLOSED_SECONDS = 60.0
_SENDER_SECONDS = 300.0
# Much more than is stored: a secret that is cut in two would not be recognised.
_LONGEST_EXCERPT = 20_000
# RFC 4954: authentication required, failed, or needs encryption; 525 is the basic code of 5.7.13
# (RFC 5248), "user account disabled", and the user is us.
_NOT_LOGGED_IN = (525, 530, 534, 535, 538)
_CLOSING = 421
_LONGEST_BODY = 100_000


class Outcome(StrEnum):
    """The four things a hand-over can mean."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"


class Blame(StrEnum):
    """Whose fault it is that a message was not taken."""

    MESSAGE = "message"
    PACE = "pace"
    """Ours, for being too fast: nothing more through this provider for a moment."""
    ROUTE = "route"
    """The network's, the account's or its key's: nothing more until that is put right."""
    CALL = "call"
    """Nobody knows whose: the call could not even be made, or why it was refused is cut off. A
    single one is this mail's fault, many in a row are ours."""
    SENDER = "sender"
    """The provider does not accept the sending domain: nothing more from it for a moment. Other
    senders' mail goes on."""


class Phase(StrEnum):
    """What a server has answered to."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one hand-over of one message.

    `retry_after` is in seconds and only ever set with RETRY, or in doubt where the provider has
    asked for a pause since. Where it is somebody else's fault the attempt does not count, so that
    an outage does not use them up.
    """

    outcome: Outcome
    detail: str = ""
    esp_id: str = ""
    retry_after: float | None = None
    blame: Blame = Blame.MESSAGE
    bounce: BounceClass | None = None
    """What the receiving server's answer says of the address, or of us."""
    own_fault: bool = False
    """With PERMANENT: it is this mail or its address for sure, and no sign against the provider."""

    @property
    def is_plain_refusal(self) -> bool:
        """Refused for no fault of the address: one is this mail's fault, many in a row are ours or
        the server's."""
        if self.blame == Blame.CALL:
            return True
        is_of_address = self.own_fault or self.bounce in FOR_GOOD
        return self.outcome == Outcome.PERMANENT and not is_of_address

    @property
    def spares_attempt(self) -> bool:
        return self.outcome != Outcome.UNKNOWN and self.blame not in (Blame.MESSAGE, Blame.CALL)

    @property
    def stops_provider(self) -> bool:
        """Nothing more may go this way now, whoever it is from."""
        return self.blame in (Blame.PACE, Blame.ROUTE)


class HandoverError(Exception):
    """Raised by a backend of ours that already knows the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


def verdict_of(error: BaseException, traits: Traits, *, posted: bool = True) -> Verdict:
    """The verdict for whatever a backend's `send_messages` raised. `posted`: the request was on its
    way. Never raises."""
    try:
        return _verdict_of(error, traits, posted)
    except Exception:  # noqa: BLE001 - an answer nobody has thought of
        return Verdict(Outcome.UNKNOWN, f"not understood: {type(error).__name__}")


def _verdict_of(error: BaseException, traits: Traits, posted: bool) -> Verdict:
    if isinstance(error, HandoverError):
        return error.verdict
    if isinstance(error, AnymailRequestsAPIError) and error.response is not None:
        return _of_request(error, traits)
    if isinstance(error, AnymailRecipientsRefused):
        return Verdict(Outcome.PERMANENT, "the provider refused the recipient", own_fault=True)
    if not posted:
        return _of_unmade(error)
    return Verdict(Outcome.UNKNOWN, type(error).__name__)


def _of_unmade(error: BaseException) -> Verdict:
    """While the call was being put together: nobody was asked."""
    name = type(error).__name__
    if isinstance(error, AnymailError | ValueError):  # a header, an address, a missing feature
        return Verdict(Outcome.PERMANENT, f"cannot be expressed: {name}", own_fault=True)
    return Verdict(Outcome.RETRY, f"the call cannot be made: {name}", blame=Blame.CALL)


def of_connection(error: BaseException) -> Verdict:
    """The verdict when no connection came about: nothing was handed over."""
    detail = f"no connection: {type(error).__name__}"
    return Verdict(Outcome.RETRY, detail, blame=Blame.ROUTE)


def of_smtp_reply(code: int, text: bytes, phase: Phase) -> Verdict:
    """The verdict for a server's negative answer (4xx or 5xx).

    What it answers to MAIL is about us: it has not heard yet whom the mail is for. Only its
    answers to RCPT and to the text say anything of an address.
    """
    reply = f"{code} {text.decode('ascii', 'replace')}"
    detail = _excerpt(f"SMTP {reply}")
    if code in _NOT_LOGGED_IN:
        wait = _CLOSED_SECONDS
        return Verdict(Outcome.RETRY, detail, retry_after=wait, blame=Blame.ROUTE)
    if phase is Phase.MAIL and code != _CLOSING:
        wait = _SENDER_SECONDS if code >= 500 else _CLOSED_SECONDS
        return Verdict(Outcome.RETRY, detail, retry_after=wait, blame=Blame.SENDER)
    bounce = _bounce(reply, phase)
    if code >= 500:
        return Verdict(Outcome.PERMANENT, detail, bounce=bounce)
    # It is not the message's fault that the server is about to close.
    blame = Blame.PACE if code == _CLOSING else Blame.MESSAGE
    return Verdict(Outcome.RETRY, detail, blame=blame, bounce=bounce)


def _bounce(reply: str, phase: Phase) -> BounceClass | None:
    match phase:
        case Phase.MAIL:
            return None
        case Phase.DATA:
            return not_hard(classify_reply(reply))
        case _:
            return classify_reply(reply)


def of_smtp_fault(error: BaseException, *, in_doubt: bool) -> Verdict:
    """The verdict when there was no answer, or none that can be read; `in_doubt` says whether the
    message's text was on its way.

    Up to the reply to DATA the server cannot have taken the message. Between the text's first
    byte and the reply to it, it may have (RFC 1047).
    """
    if in_doubt:
        return Verdict(Outcome.UNKNOWN, f"connection lost after the text: {type(error).__name__}")
    return of_connection(error)


def of_answer(status: int, headers: Mapping[str, str], body: str, traits: Traits) -> Verdict:
    """The verdict for an HTTP answer that its backend did not take for success. `headers` ignore
    case."""
    code = _code(headers, body, traits)
    answer = traits.codes.get(code)
    if answer is None and 200 <= status < 300:
        if not code and _says_success(body, traits):
            # Anymail raises on a 2xx whose body it cannot read; the provider took the mail all the
            # same, and tells its name for it in its webhooks.
            return Verdict(Outcome.ACCEPTED, f"HTTP {status}")
        answer = Answer(Meaning.DOUBT)
    wait = retry_after(headers.get("Retry-After"))
    answer = answer or traits.statuses.get(status) or STATUSES.get(status) or _usual(status, wait)
    if answer.meaning == Meaning.REFUSED and traits.code_at and _is_half(body):
        # It was not taken, and why not would be in the other half: its code may mean "later".
        answer = Answer(Meaning.UNCLEAR)
    if answer.worded is not None and answer.worded[0] in body:
        answer = Answer(answer.worded[1])
    return _verdict(answer, f"HTTP {status} {code}: {body}", wait)


def storable(esp_id: object) -> str:
    """The provider's name for a mail, as far as it can be stored."""
    text = esp_id if isinstance(esp_id, str) else ""
    if text.isprintable():
        return text[:200]
    return "".join(character for character in text if character.isprintable())[:200]


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or HTTP date), clamped; None if absent.

    An unreadable or negative value counts as the shortest wait, not as an error.
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return MIN_RETRY_AFTER
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    # `not >=` rather than `<`: NaN, which float() reads without complaint, compares false.
    return min(seconds, MAX_RETRY_AFTER) if seconds >= MIN_RETRY_AFTER else MIN_RETRY_AFTER


def _usual(status: int, wait: float | None) -> Answer:
    if 300 <= status < 400:
        return Answer(Meaning.CLOSED)  # never followed: it would carry the key elsewhere
    if status == 503 and wait is not None:
        return Answer(Meaning.SLOWER)
    return Answer(Meaning.DOUBT if status >= 500 else Meaning.REFUSED)


def _verdict(answer: Answer, detail: str, wait: float | None) -> Verdict:
    detail = _excerpt(detail)
    match answer.meaning:
        case Meaning.REFUSED:
            return Verdict(Outcome.PERMANENT, detail)
        case Meaning.RECIPIENT:
            return Verdict(Outcome.PERMANENT, detail, own_fault=True)
        case Meaning.DOUBT:
            return Verdict(Outcome.UNKNOWN, detail)
        case Meaning.LATER:
            return Verdict(Outcome.RETRY, detail, retry_after=wait or answer.wait)
        case Meaning.UNCLEAR:
            return Verdict(Outcome.RETRY, detail, retry_after=wait, blame=Blame.CALL)
        case Meaning.SLOWER:
            pause = wait or answer.wait or MIN_RETRY_AFTER
            return Verdict(Outcome.RETRY, detail, retry_after=pause, blame=Blame.PACE)
        case Meaning.SENDER:
            pause = wait or answer.wait or _SENDER_SECONDS
            return Verdict(Outcome.RETRY, detail, retry_after=pause, blame=Blame.SENDER)
        case Meaning.CLOSED:
            pause = wait or answer.wait or _CLOSED_SECONDS
            return Verdict(Outcome.RETRY, detail, retry_after=pause, blame=Blame.ROUTE)


def _of_request(error: AnymailRequestsAPIError, traits: Traits) -> Verdict:
    response = error.response
    # Not `text`: the charset is the server's to invent.
    body = response.content.decode("utf-8", "replace")
    return of_answer(response.status_code, response.headers, body, traits)


def _code(headers: Mapping[str, str], body: str, traits: Traits) -> str:
    """The error's code; empty when there is none where it should be, or it is 0."""
    if traits.code_header and (told := headers.get(traits.code_header)):
        return _bare(told)
    found = _found(body, traits.code_at) if traits.code_at else None
    if found and isinstance(found, str | int):
        return str(found)[:60]
    others = (_found(body, [key]) for key in traits.code_else)
    return next((_bare(other)[:60] for other in others if other and isinstance(other, str)), "")


def _bare(code: str) -> str:
    """Amazon's may have a name space before it and a URL behind."""
    return code.partition(":")[0].rpartition("#")[2]


def _says_success(body: str, traits: Traits) -> bool:
    """Whether the body of a 2xx says that the mail was taken, where it is the body that says so."""
    if traits.success is None:
        return True
    key, word = traits.success
    return bool(_found(body, [key]) == word)


def _is_half(body: str) -> bool:
    """Whether it is the beginning of a JSON object, and no more."""
    if not body.lstrip().startswith("{"):
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return True
    return False


def _found(body: str, path: Sequence[str | int]) -> Any:
    """What the path leads to in a JSON body; None when there is nothing, or no such body."""
    if len(body) > _LONGEST_BODY:
        return None
    try:
        found = json.loads(body)
        for step in path:
            found = found[step]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return found


def _excerpt(text: str) -> str:
    """A foreign text as one line. It still has addresses and our secrets, see `calls.shown`."""
    printable = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_EXCERPT])
    return " ".join(printable.split())
