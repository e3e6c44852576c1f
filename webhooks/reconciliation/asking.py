"""Asking a provider: one request at a time, of a host the operator has named."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from delivery.verdicts import retry_after
from webhooks.session import guarded_session

# Postmark tells a whole list at once: of some two hundred thousand addresses at this size.
_MOST_BYTES = 32 * 1024 * 1024
_SLOWER_SECONDS = 60.0
_LEAST_SECONDS = 1.0

# When a limit ends. Below a year's worth they are seconds from now.
_RESETS = ("X-RateLimit-Reset", "x-sib-ratelimit-reset", "RateLimit-Reset")
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?")
_FIRST_MOMENT, _FIRST_MILLISECONDS = 3e7, 1e11


class NotTold(Exception):
    """The provider did not tell. The text says why, without an address and without a secret;
    `wait` is after how many seconds it may be asked again, where that is known."""

    blames_question = False
    """Whether it answered that what was asked for is wrong. An outage, a limit, a key are not."""

    def __init__(self, why: str, *, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class NotAllowed(NotTold):
    """The key is wrong, or does not reach that far."""


class WrongQuestion(NotTold):
    """It is there and lets us ask, but not for this."""

    blames_question = True


class NotThere(WrongQuestion):
    """The account has nothing of that name."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A provider's API as one account reaches it; `options` are the account's, secrets included."""

    base: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    domains: tuple[str, ...] = ()
    """Those our mail is sent from."""
    session: requests.Session = field(default_factory=lambda: guarded_session(_MOST_BYTES))
    clients: dict[str, Any] = field(default_factory=dict, repr=False)
    """Of libraries that bring their own, kept from page to page."""

    def ask(self, path: str, parameters: Mapping[str, Any] | str = "") -> Any:
        """The JSON document at the path below `base`; raises `NotTold`."""
        try:
            response = self.session.get(
                f"{self.base.rstrip('/')}/{path}", params=parameters or None, auth=self._sign
            )
        except (requests.RequestException, ValueError) as error:
            # Without its text, which quotes the URL and in it perhaps an address.
            raise NotTold(f"no answer: {type(error).__name__}") from None
        return _document(response)

    def close(self) -> None:
        """Hang up."""
        self.session.close()

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, because headers would give way to what ~/.netrc says about the host.
        request.headers.update(self.headers)
        return request


def entries_of(answer: object, name: str) -> list[Any]:
    """The list of that name, which may be empty; raises `NotTold` when there is none: what is no
    list must not look like one on which nobody is."""
    entries = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise NotTold("an answer in another shape")
    return entries


def _document(response: requests.Response) -> Any:
    status = response.status_code
    if status == requests.codes.ok:
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise NotTold("an answer that is no JSON") from None
    raise _refusal(status, _wait(response.headers))


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until it may be asked again, where it says so. SendGrid names the moment, Brevo the
    seconds; neither sends Retry-After."""
    if (told := headers.get("Retry-After")) is not None:
        return retry_after(told)
    return next(filter(None, (_until(headers.get(name, "")) for name in _RESETS)), None)


def _until(reset: str) -> float | None:
    """Seconds until a moment of Unix time, which may be in milliseconds, or as many as it says."""
    text = reset.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if number >= _FIRST_MILLISECONDS:
        number /= 1_000
    seconds = number - time.time() if number >= _FIRST_MOMENT else number
    return max(seconds, _LEAST_SECONDS)


def _refusal(status: int, wait: float | None) -> NotTold:
    if status in (401, 402, 403):
        return NotAllowed(f"status {status}: the key is wrong or may not read this", wait=wait)
    if status == 404:
        return NotThere("status 404: there is none of that name in this account", wait=wait)
    if status == 429:
        return NotTold("status 429: asked too often", wait=wait or _SLOWER_SECONDS)
    if status in (408, 425) or not 400 <= status < 500:
        return NotTold(f"status {status}", wait=wait)
    return WrongQuestion(f"status {status}", wait=wait)
