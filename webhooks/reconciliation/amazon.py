"""SES through boto3, which is not part of every installation: nothing imports this at its top."""

from collections.abc import Mapping
from typing import Any

from boto3.session import Session
from botocore import exceptions as boto
from botocore.config import Config
from django.conf import settings

from webhooks.reading import as_detail, at, text_at
from webhooks.reconciliation.asking import NotAllowed, NotTold, WrongQuestion

_NOT_ALLOWED = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "ExpiredTokenException"),
        *("InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"),
        *("MissingAuthenticationTokenException", "UnrecognizedClientException", "OptInRequired"),
    }
)
_WRONG = frozenset({"InvalidNextTokenException", "BadRequestException", "ValidationException"})
_SLOWER = frozenset({"TooManyRequestsException", "Throttling", "ThrottlingException"})


def client(options: Mapping[str, Any]) -> Any:
    """A client of SESv2; `options` are those of a route to it, as boto3 names them."""
    # What is done again is done by us, where it is seen.
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=min(10, settings.EMAIL_TIMEOUT),
        read_timeout=settings.EMAIL_TIMEOUT,
    )
    given = {name: value for name, value in options.items() if value}
    return Session().client("sesv2", config=config, **given)


def list_suppressed(client: Any, parameters: Mapping[str, Any]) -> Any:
    """SESv2's ListSuppressedDestinations, asked once; raises `NotTold`."""
    try:
        answer = client.list_suppressed_destinations(**parameters)
    except boto.ClientError as error:
        raise _refusal(error) from None
    except (boto.BotoCoreError, boto.HTTPClientError, ValueError) as error:
        raise NotTold(f"no answer: {type(error).__name__}") from None
    # boto3 reads anything as JSON that says 200, and finds nothing in it.
    told_as = at(answer, "ResponseMetadata", "HTTPHeaders", "content-type") or ""
    if "SuppressedDestinationSummaries" not in answer and "json" not in told_as:
        raise NotTold("an answer in another shape")
    return answer


def _refusal(error: boto.ClientError) -> NotTold:
    code = as_detail(text_at(error.response, "Error", "Code"))[:60] or "an error without a code"
    if code in _NOT_ALLOWED:
        return NotAllowed(f"{code}: needs the permission ses:ListSuppressedDestinations")
    if code in _WRONG:
        return WrongQuestion(code)
    return NotTold(code, wait=60.0 if code in _SLOWER else None)
