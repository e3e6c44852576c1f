"""Amazon SES, called as the other providers are: Anymail says what goes along with a mail, and the
call is signed here. botocore, whose own client would repeat calls, finds the keys and the endpoint.

https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message as Header
from functools import cache
from typing import Any

import botocore.session
import msgspec
from anymail.backends import amazon_ses
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from django.conf import settings

from delivery.backends.client import Request
from delivery.backends.http import GuardedBackend
from delivery.mime import head

_PATH = "v2/email/outbound-emails"


class SESPayload(amazon_ses.AmazonSESV2SendEmailPayload):
    """Anymail's, around the bytes that are made already."""

    def init_payload(self) -> None:
        self.params: dict[str, Any] = {}
        self.all_recipients: list[Any] = []
        # Where Anymail puts metadata and tags.
        self.mime_message = Header()

    @property
    def own_headers(self) -> Sequence[tuple[str, str]]:
        """What goes along with the mail: metadata and tags."""
        return self.mime_message.items()

    @property
    def body(self) -> bytes:
        """The call, in JSON."""
        raw = base64.b64encode(head(self.own_headers) + self.message.wire).decode()
        return msgspec.json.encode({**self.params, "Content": {"Raw": {"Data": raw}}})

    def parse_recipient_status(self, response: Any) -> Any:
        return super().parse_recipient_status(msgspec.json.decode(response.content))


class SESBackend(GuardedBackend, amazon_ses.EmailBackend):
    """`region_name`, `endpoint_url` and the keys as boto3 names them; all may be left to botocore's
    own search (environment, instance role)."""

    payload_class = SESPayload

    def __init__(self, *, fail_silently: bool = False, **options: str) -> None:
        """Raises whatever the search for keys raises. It is made here, where a thread may wait for
        it: those of a role expire, and new ones are asked for."""
        super().__init__(fail_silently=fail_silently)
        account = _account(**options)
        self.api_url = account.url
        self._signer = account.signer()

    @property
    def secrets(self) -> Sequence[str]:
        """The keys that were found."""
        keys = self._signer.credentials
        return [key for key in (keys.access_key, keys.secret_key, keys.token) if key]

    def request(self, payload: SESPayload) -> Request:
        """As `GuardedBackend`'s."""
        return self.sealed(Request(f"{self.api_url}{_PATH}", self._own_headers, payload.body))

    def sealed(self, request: Request) -> Request:
        """Signed, for the next few minutes."""
        headers = {"Content-Type": "application/json"}
        signed = AWSRequest("POST", request.url, headers, request.body)
        self._signer.add_auth(signed)
        return Request(request.url, {**self._own_headers, **signed.headers}, request.body)


@dataclass(frozen=True, slots=True)
class _Account:
    """Where its calls go, and who makes them."""

    url: str
    region: str
    service: str
    keys: Any

    def signer(self) -> SigV4Auth:
        """With the keys of now; raises whatever finding them raises."""
        return SigV4Auth(self.keys.get_frozen_credentials(), self.service, self.region)


@cache
def _account(
    *,
    region_name: str,
    endpoint_url: str = "",
    aws_access_key_id: str = "",
    aws_secret_access_key: str = "",
) -> _Account:
    session = botocore.session.Session()
    # Of whoever is asked for a role's keys.
    seconds = settings.EMAIL_TIMEOUT
    session.set_default_client_config(
        Config(
            connect_timeout=min(10, seconds),
            read_timeout=seconds,
            retries={"total_max_attempts": 1},
        )
    )
    if aws_access_key_id:
        session.set_credentials(aws_access_key_id, aws_secret_access_key)
    client = session.create_client("sesv2", region_name, endpoint_url=endpoint_url or None)
    url, service = client.meta.endpoint_url, client.meta.service_model.signing_name
    client.close()
    keys = session.get_credentials()
    if keys is None:
        raise NoCredentialsError  # which is not remembered: the next one looks again
    return _Account(f"{url.rstrip('/')}/", region_name, service, keys)
