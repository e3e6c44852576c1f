"""Anymail's SES backend without boto3's hidden retries: of a call that got no answer nobody knows
what became of it, and boto3 would make it again."""

import ssl
import traceback
from typing import Any, TypeGuard

from anymail.backends import amazon_ses
from anymail.exceptions import AnymailAPIError
from botocore import exceptions as boto
from botocore.config import Config
from django.conf import settings
from django.core.mail import EmailMessage

from delivery.backends.posting import Posting
from delivery.providers import TRAITS
from delivery.verdicts import HandoverError, Outcome, Verdict, of_answer, of_connection

_NOT_REACHED = (
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProxyConnectionError,
)


class SESBackend(Posting, amazon_ses.EmailBackend):
    """`region_name`, `endpoint_url` and the keys as boto3 names them; all may be left to boto3's
    own search (environment, instance role)."""

    def __init__(self, *, fail_silently: bool = False, **options: Any) -> None:
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(10, settings.EMAIL_TIMEOUT),
            read_timeout=settings.EMAIL_TIMEOUT,
        )
        given = {name: value for name, value in options.items() if value}
        super().__init__(fail_silently=fail_silently, client_params={"config": config, **given})

    def parse_recipient_status(self, response: Any, payload: Any, message: EmailMessage) -> Any:
        """As Anymail's; SES has taken what it answers to, in whatever shape."""
        try:
            return super().parse_recipient_status(response, payload, message)
        except Exception as error:  # whatever shape: the call has succeeded
            verdict = Verdict(Outcome.ACCEPTED, "an answer in another shape")
            raise HandoverError(verdict) from error

    def post_to_esp(self, payload: Any, message: EmailMessage) -> Any:
        """As Anymail's; raises `HandoverError`."""
        try:
            return super().post_to_esp(payload, message)
        except AnymailAPIError as error:
            raise HandoverError(_verdict(error.__cause__)) from error


def _is_of_handshake(cause: BaseException | None) -> TypeGuard[boto.SSLError]:
    """Whether TLS did not come about. boto3 has one exception for that and for a connection that
    breaks when the call has been written; only where it was raised tells which."""
    if not isinstance(cause, boto.SSLError):
        return False
    origin: BaseException | None = cause
    while origin is not None and not isinstance(origin, ssl.SSLError):
        origin = origin.__cause__ or origin.__context__
    frames = traceback.walk_tb(origin.__traceback__) if origin is not None else ()
    return any(frame.f_code.co_name == "do_handshake" for frame, _ in frames)


def _verdict(cause: BaseException | None) -> Verdict:
    if isinstance(cause, _NOT_REACHED) or _is_of_handshake(cause):
        return of_connection(cause)
    if isinstance(cause, boto.ParamValidationError):
        detail = "cannot be expressed: ParamValidationError"
        return Verdict(Outcome.PERMANENT, detail, own_fault=True)
    if not isinstance(cause, boto.ClientError):
        return Verdict(Outcome.UNKNOWN, f"no answer: {type(cause).__name__}")
    told = cause.response.get("Error", {})
    text, code = str(told.get("Message", "")), str(told.get("Code", ""))
    if code == "MessageRejected" and "not verified" in text:
        # SES says this of a virus and of a sender it does not know; only its text tells which.
        code = "MessageRejected.NotVerified"
    about = cause.response.get("ResponseMetadata", {})
    headers = {name.title(): value for name, value in about.get("HTTPHeaders", {}).items()}
    return of_answer(
        about.get("HTTPStatusCode", 500),
        headers,
        text,
        TRAITS["ses"],
        code=code,
    )
