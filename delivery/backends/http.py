"""Anymail's backends as makers of calls and readers of answers; the calls are `client`'s."""

import re
import sys
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from typing import Any

import anymail
import msgspec
import requests
from anymail.backends.base import BasePayload
from anymail.backends.base_requests import AnymailRequestsBackend, RequestsPayload
from anymail.exceptions import AnymailCancelSend, AnymailRequestsAPIError
from anymail.message import AnymailStatus
from anymail.utils import (
    EmailAddress,
    force_non_lazy,
    force_non_lazy_dict,
    force_non_lazy_list,
    parse_address_list,
)
from django.core.mail import EmailMessage
from requests.auth import _basic_auth_str

from delivery.backends.client import Request
from delivery.outbound import OutboundEmail

# What needs no quoting and no encoding.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


class GuardedBackend:
    """Mixed into a backend of Anymail's, which then makes the call of each mail and reads its
    answer, and leaves the call itself to `client`.

    What the server said reaches the verdict as it is: some of Anymail's backends take an error for
    an answer about the recipient, or trip over it.
    """

    payload_class: type[RequestsPayload]
    api_url: str

    @property
    def secrets(self) -> Sequence[str]:
        """What its calls carry and nobody may see, besides what it was made with."""
        return ()

    def open(self) -> bool:
        """Connections are the client's."""
        return False

    def prepare(self, message: EmailMessage) -> Any:
        """The mail as Anymail puts it; raises `AnymailError` or `ValueError` for what the provider
        cannot express."""
        backend: Any = self
        message.anymail_status = AnymailStatus()  # type: ignore[attr-defined]
        if not backend.run_pre_send(message):
            raise AnymailCancelSend
        payload = self.payload_class(message, backend.send_defaults, self)
        if isinstance(message, OutboundEmail):
            self.add_key(payload, message)
        return payload

    def add_key(self, payload: Any, message: OutboundEmail) -> None:
        """For providers that take an idempotency key."""

    def request(self, payload: Any) -> Request:
        """The call that offers this one mail."""
        params = payload.get_request_params(self.api_url)
        data, headers = params["data"], {**self._own_headers, **(params["headers"] or {})}
        if not isinstance(data, str | bytes) or params["files"] or params["params"]:
            return _encoded(params, headers)
        if params["auth"] is not None:
            headers["Authorization"] = _basic_auth_str(*params["auth"])
        return Request(params["url"], headers, data.encode() if isinstance(data, str) else data)

    def sealed(self, request: Request) -> Request:
        """A call of many mails, with what its provider wants to see of us."""
        return request

    def conclude(self, message: EmailMessage, payload: Any, answer: requests.Response) -> None:
        """Leave in the mail's `anymail_status` what the answer says; raises `AnymailError` unless
        that is a success."""
        backend: Any = self
        backend.raise_for_status(answer, payload, message)
        status = message.anymail_status  # type: ignore[attr-defined]
        status.esp_response = answer
        status.set_recipient_status(self.parse_recipient_status(answer, payload, message))
        backend.run_post_send(message)
        backend.raise_for_recipient_status(status, answer, payload, message)

    def raise_for_status(
        self, response: requests.Response, payload: Any, message: EmailMessage
    ) -> None:
        AnymailRequestsBackend.raise_for_status(self, response, payload, message)

    def parse_recipient_status(
        self, response: requests.Response, payload: Any, message: EmailMessage
    ) -> Any:
        try:
            found = super().parse_recipient_status(response, payload, message)  # type: ignore[misc]
        except AnymailRequestsAPIError:
            raise
        except Exception as error:  # KeyError, TypeError: a shape Anymail has not thought of
            raise self._in_another_shape(response, payload, message) from error
        if not found:  # which Anymail takes for a refusal of everybody
            raise self._in_another_shape(response, payload, message)
        return found

    def _in_another_shape(
        self, response: requests.Response, payload: Any, message: EmailMessage
    ) -> AnymailRequestsAPIError:
        return AnymailRequestsAPIError(
            "an answer in another shape",
            email_message=message,
            payload=payload,
            response=response,
            backend=self,
        )

    @cached_property
    def _own_headers(self) -> dict[str, str]:
        name = self.esp_name.lower()  # type: ignore[attr-defined]
        return {"User-Agent": f"django-anymail/{anymail.__version__}-{name} emailauto"}


def _encoded(params: dict[str, Any], headers: dict[str, str]) -> Request:
    """A form, or whatever else is not a text already."""
    known = {name: params[name] for name in ("method", "url", "params", "data", "files", "auth")}
    made = requests.Request(**known, headers=headers).prepare()
    body: Any = made.body or b""
    encoded = body.encode() if isinstance(body, str) else body
    return Request(
        str(made.url), {name: str(value) for name, value in made.headers.items()}, encoded
    )


def _addresses(given: str | Sequence[str]) -> list[EmailAddress]:
    texts = [given] if isinstance(given, str) else given
    return [address for text in texts for address in _parsed(text)]


def _parsed(text: str) -> Sequence[EmailAddress]:
    if _PLAIN.fullmatch(text):
        name, _, domain = text.rpartition("@")
        return (EmailAddress(username=name, domain=domain),)
    return _parsed_once(text)


@lru_cache(1_000)
def _parsed_once(text: str) -> Sequence[EmailAddress]:
    return tuple(parse_address_list([text]))


def as_json(data: Any) -> bytes:
    """What Anymail puts into payloads, as JSON."""
    return msgspec.json.encode(data, enc_hook=_plain)


def _plain(value: Any) -> Any:
    # A header's value may be `mime.Encoded`; headers are a dictionary that ignores case.
    return str(value) if isinstance(value, str) else dict(value)


def _as_it_is(value: Any) -> Any:
    return value


def _quick(attributes: Sequence[tuple[str, Any, Any]]) -> tuple[tuple[str, Any, Any], ...]:
    return tuple(
        (name, combiner, _QUICK.get(converter, converter))
        for name, combiner, converter in attributes
    )


# No text of ours waits for a language to be chosen.
_QUICK = {
    parse_address_list: _addresses,
    force_non_lazy: _as_it_is,
    force_non_lazy_dict: _as_it_is,
    force_non_lazy_list: _as_it_is,
    "prepped_alternatives": _as_it_is,
}


class _QuickPayload:
    """Mixed into a payload of Anymail's: the same payload for a mail of ours, without parsing each
    address as if nobody had before."""

    base_message_attrs = _quick(BasePayload.base_message_attrs)
    anymail_message_attrs = _quick(BasePayload.anymail_message_attrs)

    def serialize_json(self, data: Any) -> str:
        if data is not self.data:  # type: ignore[attr-defined]
            return str(super().serialize_json(data))  # type: ignore[misc]
        return as_json(data).decode()


@cache
def guarded(backend: type[AnymailRequestsBackend]) -> type[GuardedBackend]:
    """The same backend, guarded."""
    payload = type("QuickPayload", (_QuickPayload, _payload_of(backend)), {})
    name = f"Guarded{backend.__module__.title()}"
    bases = (backend,) if issubclass(backend, GuardedBackend) else (GuardedBackend, backend)
    return type(name, bases, {"payload_class": payload})


def _payload_of(backend: type[AnymailRequestsBackend]) -> type[RequestsPayload]:
    """What the backend's `build_message_payload` makes: the one payload of Anymail's module."""
    (theirs,) = (
        c
        for c in backend.__mro__
        if c.__module__.startswith("anymail.backends.")
        and not c.__module__.startswith("anymail.backends.base")
    )
    (payload,) = (
        kind
        for kind in vars(sys.modules[theirs.__module__]).values()
        if isinstance(kind, type)
        and issubclass(kind, RequestsPayload)
        and kind.__module__ == theirs.__module__
    )
    return payload
