"""Calls as the providers make and sign them.

Each provider has three secrets: the first two are configured, as while one replaces the other, and
the third is a stranger's.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from django.http import HttpResponse
from django.test import Client

STRANGER = 2
TOPIC = "arn:aws:sns:eu-west-1:123456789012:shop-mail"
CERTIFICATES = [
    f"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{number}{'0' * 31}.pem"
    for number in range(3)
]
BASIC = ["hook:secret", "hook:newer", "hook:wrong"]
PLAIN = ["signing-key-one", "signing-key-two", "signing-key-three"]
SVIX = ["whsec_" + base64.b64encode(f"{text:0<32}".encode()).decode() for text in PLAIN]

Signed = tuple[dict[str, str], bytes]


@cache
def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def certificate(number: int) -> bytes:
    """What stands at the URL of that number, for the RSA key of that number."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    today = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa_key(number).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
    )
    return builder.sign(rsa_key(number), SHA256()).public_bytes(Encoding.PEM)


def public_text(key: Any) -> str:
    """A public key as providers show it."""
    form = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(form).decode()


def settings_for_tests() -> dict[str, list[str]]:
    return {
        "WEBHOOK_SECRET": BASIC[:STRANGER],
        "SES_TOPIC_ARNS": [TOPIC],
        "SENDGRID_WEBHOOK_PUBLIC_KEY": [public_text(ec_key(n)) for n in range(STRANGER)],
        "MAILGUN_WEBHOOK_SIGNING_KEY": PLAIN[:STRANGER],
        "RESEND_WEBHOOK_SECRET": SVIX[:STRANGER],
        "MAILERSEND_WEBHOOK_SECRET": PLAIN[:STRANGER],
        "POSTAL_WEBHOOK_KEY": [public_text(rsa_key(n)) for n in range(STRANGER)],
    }


def basic(body: bytes, moment: datetime, number: int) -> Signed:
    credentials = base64.b64encode(BASIC[number].encode()).decode()
    return {"Authorization": f"Basic {credentials}"}, body


def sendgrid(body: bytes, moment: datetime, number: int) -> Signed:
    timestamp = str(int(moment.timestamp()))
    signature = ec_key(number).sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    return {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }, body


def mailgun(body: bytes, moment: datetime, number: int) -> Signed:
    """Signed in its body, in which a token that is there stays."""
    document = json.loads(body)
    block = document.setdefault("signature", {})
    if str(block.get("token", "@@")).startswith("@@"):
        block["token"] = secrets.token_hex(25)
    block["timestamp"] = str(int(moment.timestamp()))
    text = (block["timestamp"] + block["token"]).encode()
    block["signature"] = hmac.new(PLAIN[number].encode(), text, sha256).hexdigest()
    return basic(b"", moment, 0)[0], json.dumps(document).encode()


def resend(body: bytes, moment: datetime, number: int, own_id: str = "") -> Signed:
    # The same event, the same id.
    own_id = own_id or f"msg_{sha256(body).hexdigest()[:27]}"
    timestamp = str(int(moment.timestamp()))
    key = base64.b64decode(SVIX[number].removeprefix("whsec_"))
    mac = hmac.new(key, f"{own_id}.{timestamp}.".encode() + body, sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    return {
        "svix-id": own_id,
        "svix-timestamp": timestamp,
        # Something of another kind stands before it, as while Svix moves to other signatures.
        "svix-signature": f"v1a,{base64.b64encode(bytes(64)).decode()} {signature}",
    }, body


def mailersend(body: bytes, moment: datetime, number: int) -> Signed:
    return {"Signature": hmac.new(PLAIN[number].encode(), body, sha256).hexdigest()}, body


def postal(body: bytes, moment: datetime, number: int) -> Signed:
    key = rsa_key(number)
    old, new = (key.sign(body, padding.PKCS1v15(), algorithm) for algorithm in (SHA1(), SHA256()))
    return {
        "X-Postal-Signature": base64.b64encode(old).decode(),
        "X-Postal-Signature-256": base64.b64encode(new).decode(),
        "X-Postal-Signature-KID": "0" * 64,
    }, body


def sns(body: bytes, moment: datetime, number: int) -> Signed:
    """Signed in its body; what is there of an envelope stays."""
    envelope = {
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATES[number],
        "Timestamp": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        **json.loads(body),
    }
    confirms = envelope["Type"] != "Notification"
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn"]
    unsigned = "Subject" if confirms else ("SubscribeURL", "Token")
    signed = [n for n in (*names, "Type") if n not in unsigned and n in envelope]
    text = "".join(f"{name}\n{envelope[name]}\n" for name in signed).encode()
    algorithm = SHA1() if envelope["SignatureVersion"] == "1" else SHA256()
    signature = rsa_key(number).sign(text, padding.PKCS1v15(), algorithm)
    envelope["Signature"] = base64.b64encode(signature).decode()
    return {
        "x-amz-sns-message-type": envelope["Type"],
        "x-amz-sns-message-id": envelope["MessageId"],
        "x-amz-sns-topic-arn": envelope["TopicArn"],
    }, json.dumps(envelope).encode()


SIGNERS: Mapping[str, Callable[[bytes, datetime, int], Signed]] = {
    "brevo": basic,
    "mailersend": mailersend,
    "mailgun": mailgun,
    "mailjet": basic,
    "postal": postal,
    "postmark": basic,
    "resend": resend,
    "sendgrid": sendgrid,
    "ses": sns,
    "sparkpost": basic,
}
ARRAYS = ("mailjet", "sendgrid", "sparkpost")


def body_of(provider: str, *documents: Any) -> bytes:
    """The body of a call that tells these: an array, or SNS's envelope, or the document."""
    if provider in ARRAYS:
        return json.dumps(documents).encode()
    (document,) = documents
    return json.dumps(envelope(document) if provider == "ses" else document).encode()


def envelope(event: Any, **fields: Any) -> dict[str, Any]:
    """SNS's, with a fresh id each time, as when it carries an event twice."""
    return {
        "Type": "Notification",
        "MessageId": secrets.token_hex(16),
        "TopicArn": TOPIC,
        "Message": event if isinstance(event, str) else json.dumps(event),
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
        **fields,
    }


def post(
    provider: str, headers: Mapping[str, str], body: bytes, content_type: str = "application/json"
) -> HttpResponse:
    return Client().post(
        f"/webhooks/{provider}/", data=body, content_type=content_type, headers=dict(headers)
    )


def call(
    provider: str, *documents: Any, number: int = 0, moment: datetime | None = None
) -> HttpResponse:
    """POST what tells these, signed with the secret of that number at that moment."""
    sign = SIGNERS[provider]
    return post(provider, *sign(body_of(provider, *documents), moment or datetime.now(UTC), number))
