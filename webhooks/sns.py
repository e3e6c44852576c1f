"""Amazon SNS, which carries what SES has to tell: signed messages, and how to subscribe.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. Anybody can have
SNS send us messages with a good signature, from a topic of their own. So a message counts only if
its topic is one of `SES_TOPIC_ARNS`, and every URL in it has to be on the host of that topic's
region, which follows from the ARN: nothing a stranger writes is ever connected to.
"""

import re
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate
from django.conf import settings

from common.clock import from_iso8601
from webhooks.adapters import CannotVerify, NotAuthentic
from webhooks.authenticity import from_base64, has_signed, require_recent
from webhooks.fetching import Absent, fetch
from webhooks.reading import Malformed, decode, text_at

# It gives up after an hour at the latest, whatever a subscription's retry policy says.
_WINDOW = timedelta(hours=2)

_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+)+-\d):\d{12}:[\w-]{1,256}")
_CERTIFICATE = r"/SimpleNotificationService-[0-9a-zA-Z]{1,64}\.pem"

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
_HASHES = {"1": SHA1(), "2": SHA256()}  # noqa: S303 - version 1 is what SNS signs with by default

# A stranger who knows an ARN can name certificates that do not exist. What Amazon does not have is
# not asked for again for a minute, and only two requests wait for it at a time. A failure of the
# network is not remembered: SNS tries for no more than a minute unless told to.
_ABSENT_SECONDS = 60.0
_MOST_ABSENT = 1_000
_absent: dict[str, float] = {}
# Amazon's only, a new one in a year or so. Nothing is ever dropped: what `waits` has found here,
# `verify` must not have to fetch.
_MOST_KEYS = 64
_keys: dict[str, RSAPublicKey] = {}
_fetching = threading.BoundedSemaphore(2)


def is_arn(text: str) -> bool:
    """Whether it is the ARN of a topic."""
    return _ARN.fullmatch(text) is not None


def admits(headers: Mapping[str, str]) -> bool:
    """Whether the call claims to be of a topic of ours."""
    return headers.get("X-Amz-Sns-Topic-Arn", "") in settings.SES_TOPIC_ARNS


def verify(headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Raise `NotAuthentic` unless SNS sent it, for a topic of ours, within the last hours; or
    `CannotVerify` when Amazon's certificate cannot be had."""
    message = decode(body)
    signed = _SIGNED.get(text_at(message, "Type"))
    digest = _HASHES.get(text_at(message, "SignatureVersion"))
    signature = from_base64(text_at(message, "Signature"))
    if signed is None or digest is None or not signature:
        raise NotAuthentic("It is no signed message of SNS.")
    host = _host(message)
    require_recent(_sent_at(message), now, _WINDOW)
    key = _key(_certificate_url(message, host))
    if not has_signed(key, signature, _canonical(message, signed), digest):
        raise NotAuthentic("The signature is not Amazon's.")


def waits(body: bytes) -> bool:
    """Whether `verify` will ask Amazon for a certificate."""
    try:
        message = decode(body)
        return _certificate_url(message, _host(message)) not in _keys
    except (Malformed, NotAuthentic):
        return False


def confirm(message: Mapping[str, Any]) -> None:
    """Accept the subscription a verified message offers. Doing it twice does no harm; raises
    `NotAuthentic` when it leads anywhere but to SNS, `CannotVerify` when SNS does not answer."""
    host, url = _host(message), text_at(message, "SubscribeURL")
    parts = _on_host(host, url, "/")
    query = parse_qs(parts.query)
    wanted = {"Action": ["ConfirmSubscription"], "TopicArn": [text_at(message, "TopicArn")]}
    if {name: query.get(name) for name in wanted} != wanted:
        raise NotAuthentic("Its SubscribeURL confirms something else.")
    fetch(parts.geturl())


def _host(message: Mapping[str, Any]) -> str:
    """The host of the topic's region; raises `NotAuthentic` for a topic that is not ours."""
    arn = text_at(message, "TopicArn")
    parts = _ARN.fullmatch(arn)
    if parts is None or arn not in settings.SES_TOPIC_ARNS:
        raise NotAuthentic("Its topic is none of SES_TOPIC_ARNS.")
    partition, region = parts.groups()
    return f"sns.{region}.amazonaws.com" + (".cn" if partition == "aws-cn" else "")


def _on_host(host: str, url: str, path: str) -> SplitResult:
    """The parts of an https URL on exactly this host; raises `NotAuthentic` for any other."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise NotAuthentic("One of its URLs is none.") from None
    if (parts.scheme, parts.netloc) != ("https", host) or not re.fullmatch(path, parts.path):
        raise NotAuthentic("One of its URLs leads away from SNS.")
    return parts


def _certificate_url(message: Mapping[str, Any], host: str) -> str:
    parts = _on_host(host, text_at(message, "SigningCertURL"), _CERTIFICATE)
    if parts.query or parts.fragment:
        raise NotAuthentic("Its SigningCertURL is none of SNS.")
    return parts.geturl()


def _sent_at(message: Mapping[str, Any]) -> datetime:
    try:
        return from_iso8601(text_at(message, "Timestamp"))
    except ValueError:
        raise NotAuthentic("Its time is none.") from None


def _canonical(message: Mapping[str, Any], names: tuple[str, ...]) -> bytes:
    """What SNS signs: name and value of each field that is there, a line each."""
    present = [name for name in names if isinstance(message.get(name), str)]
    text = "".join(f"{name}\n{message[name]}\n" for name in present)
    return text.encode(errors="surrogatepass")


def _key(url: str) -> RSAPublicKey:
    """The public key in SNS's certificate. Amazon's TLS vouches for it."""
    if key := _keys.get(url):
        return key
    if time.monotonic() < _absent.get(url, 0.0):
        raise CannotVerify("Amazon had no such certificate a moment ago.")
    try:
        key = _fetched_key(url)
    except Absent:
        if len(_absent) >= _MOST_ABSENT:
            _absent.clear()
        _absent[url] = time.monotonic() + _ABSENT_SECONDS
        raise
    if len(_keys) < _MOST_KEYS:
        _keys[url] = key
    return key


def _fetched_key(url: str) -> RSAPublicKey:
    if not _fetching.acquire(timeout=2):
        raise CannotVerify("Too many certificates are being fetched.")
    try:
        certificate = load_pem_x509_certificate(fetch(url))
    except ValueError:
        raise CannotVerify("What came is no certificate.") from None
    finally:
        _fetching.release()
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise CannotVerify("The certificate has a key of another kind.")
    return key
