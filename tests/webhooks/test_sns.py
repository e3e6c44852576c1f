"""Amazon SNS: whose messages count, what is fetched, and which subscriptions are confirmed."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from tests.webhooks.amazon import HOST, HOST_IN_CHINA, Amazon
from tests.webhooks.fixtures import fixture
from tests.webhooks.signing import CERTIFICATES, STRANGER, TOPIC, envelope, post, rsa_key, sns
from webhooks.models import Receipt
from webhooks.services import drain_receipts

pytestmark = pytest.mark.django_db(transaction=True)

CONFIRM = (
    f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336"
)
EVENT = json.dumps(fixture("ses", "event_bounce"))


def send(number: int = 0, **fields: Any) -> Any:
    """POST a message, signed with the key of that number as it is."""
    body = json.dumps(envelope(EVENT, **fields)).encode()
    return post("ses", *sns(body, datetime.now(UTC), number), content_type="text/plain")


def subscription(**fields: Any) -> dict[str, Any]:
    return {
        "Type": "SubscriptionConfirmation",
        "Message": "You have chosen to subscribe.",
        "SubscribeURL": CONFIRM,
        "Token": "2336",
        **fields,
    }


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [{}, {"Subject": "Amazon SES Email Event Notification"}])
def test_message_of_our_topic_is_kept(
    sns_server: Amazon, version: str, subject: dict[str, str]
) -> None:
    assert send(SignatureVersion=version, **subject).status_code == 200
    receipt = Receipt.objects.get()
    assert (receipt.provider, receipt.content_type) == ("ses", "text/plain")


@pytest.mark.parametrize("version", ["0", "3", "", None, 1])
def test_unknown_version_of_the_signature_is_refused(sns_server: Amazon, version: Any) -> None:
    assert send(SignatureVersion=version).status_code == 401


@pytest.mark.parametrize(
    "topic",
    [
        "arn:aws:sns:eu-west-1:666666666666:shop-mail",
        "arn:aws:sns:eu-west-1:123456789012:other",
        "arn:aws:sns:us-east-1:123456789012:shop-mail",
        TOPIC + " ",
        TOPIC.upper(),
        "",
    ],
)
def test_genuine_message_of_a_topic_that_is_not_ours_is_refused(
    sns_server: Amazon, topic: str
) -> None:
    """Anybody can have a topic, and SNS signs for everybody."""
    assert send(TopicArn=topic).status_code == 401
    # Nor does it help to claim ours in the header.
    body = json.dumps(envelope(EVENT, TopicArn=topic)).encode()
    headers, signed = sns(body, datetime.now(UTC), 0)
    headers["x-amz-sns-topic-arn"] = TOPIC
    assert post("ses", headers, signed).status_code == 401
    assert sns_server.asked == []
    assert not Receipt.objects.exists()


def test_message_signed_with_another_key_is_refused(sns_server: Amazon) -> None:
    """Forged with a good key and certificate, which are not those it names."""
    assert send(STRANGER, SigningCertURL=CERTIFICATES[0]).status_code == 401
    assert not Receipt.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0.pem",
        "https://evil.example\\@sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
        "https://user:x@sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com:444/SimpleNotificationService-0.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com.cn/SimpleNotificationService-0.pem",
        "https://evil-bucket.s3.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
        "ftp://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem",
        "file:///SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem?x=1",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem#x",
        "https://sns.eu-west-1.amazonaws.com/x/SimpleNotificationService-0.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-../../x.pem",
        "https://sns.eu-west-1.amazonaws.com/?Action=GetTopicAttributes",
        "https://169.254.169.254/SimpleNotificationService-0.pem",
        "https://[::1/SimpleNotificationService-0.pem",
        "",
        None,
        7,
    ],
)
def test_certificate_of_anybody_else_is_not_even_fetched(sns_server: Amazon, url: Any) -> None:
    assert send(STRANGER, SigningCertURL=url).status_code == 401
    assert sns_server.asked == []
    assert not Receipt.objects.exists()


@pytest.mark.parametrize("moment", [{"hours": -3}, {"hours": 1}])
def test_message_of_another_time_is_refused_before_anything_is_fetched(
    sns_server: Amazon, moment: dict[str, int]
) -> None:
    told = (datetime.now(UTC) + timedelta(**moment)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert send(Timestamp=told).status_code == 401
    assert send(Timestamp="soon").status_code == 401
    assert sns_server.asked == []


@pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "TopicArn", "Type"])
def test_every_field_is_covered_by_the_signature(sns_server: Amazon, field: str) -> None:
    headers, body = sns(json.dumps(envelope(EVENT)).encode(), datetime.now(UTC), 0)
    document = json.loads(body)
    for changed in (document | {field: document[field] + " "}, document | {field: None}):
        assert post("ses", headers, json.dumps(changed).encode()).status_code == 401
    document.pop(field)
    assert post("ses", headers, json.dumps(document).encode()).status_code == 401


def test_raw_delivery_has_no_signature_and_is_refused(sns_server: Amazon) -> None:
    headers = {"x-amz-sns-topic-arn": TOPIC, "x-amz-sns-rawdelivery": "true"}
    assert post("ses", headers, EVENT.encode()).status_code == 401


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_message_that_is_no_object_is_400(body: bytes) -> None:
    assert post("ses", {"x-amz-sns-topic-arn": TOPIC}, body).status_code == 400


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": CERTIFICATES[1]}, b""),
        (200, {}, b"no certificate"),
        (200, {}, b"x" * 100_000),
        (503, {}, b""),
    ],
)
def test_certificate_that_cannot_be_had_is_503_and_the_message_may_come_again(
    sns_server: Amazon, answer: tuple[int, dict[str, str], bytes]
) -> None:
    path = "/" + CERTIFICATES[0].rpartition("/")[2]
    sns_server.answers[path] = answer
    response = send()
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert sns_server.asked == [path]
    assert not Receipt.objects.exists()


def test_certificate_amazon_does_not_have_is_not_asked_for_again_at_once(
    sns_server: Amazon,
) -> None:
    url = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-ffff.pem"
    assert [send(SigningCertURL=url).status_code for _ in range(5)] == [503] * 5
    assert len(sns_server.asked) == 1
    assert send().status_code == 200


def test_failing_network_is_not_remembered(
    sns_server: Amazon, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    with monkeypatch.context() as distrust:
        distrust.setenv("REQUESTS_CA_BUNDLE", "")  # the usual ones, which do not know this server
        assert send().status_code == 503
    assert sns_server.asked == []
    assert send().status_code == 200


def test_server_that_drips_is_given_up(sns_server: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhooks.fetching._DEADLINE", 0.3)
    sns_server.drip = 1.0
    begun = time.monotonic()
    assert send().status_code == 503
    assert time.monotonic() - begun < 20.0


def test_subscription_to_our_topic_is_confirmed_by_the_worker(sns_server: Amazon) -> None:
    assert send(**subscription()).status_code == 200
    assert not any("Confirm" in path for path in sns_server.asked)
    drain_receipts(budget=10)
    assert sns_server.asked[-1] == CONFIRM.partition("amazonaws.com")[2]
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.outcome[0]["kind"]) == ("applied", "subscription confirmed")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/?Action=ConfirmSubscription",
        "http://169.254.169.254/latest/meta-data/",
        CONFIRM.replace("sns.", "sqs."),
        CONFIRM.replace("https", "http"),
        CONFIRM.replace("amazonaws.com/", "amazonaws.com:8443/"),
        CONFIRM.replace("sns.", "sns.evil.example/."),
        CONFIRM.replace("ConfirmSubscription", "DeleteTopic"),
        CONFIRM.replace("123456789012", "666666666666"),
        CONFIRM + "&Action=DeleteTopic",
        None,
    ],
)
def test_subscription_that_leads_elsewhere_is_not_visited(sns_server: Amazon, url: Any) -> None:
    """Amazon signs none of these; the worker looks all the same."""
    fields = subscription(SubscribeURL=url) if url else subscription()
    if url is None:
        del fields["SubscribeURL"]
    assert send(**fields).status_code == 200
    asked = len(sns_server.asked)
    drain_receipts(budget=10)
    assert len(sns_server.asked) == asked
    assert "NotAuthentic" in Receipt.objects.get().error


def test_subscription_of_somebody_elses_topic_is_refused(sns_server: Amazon) -> None:
    other = "arn:aws:sns:eu-west-1:666666666666:trap"
    assert send(**subscription(TopicArn=other)).status_code == 401
    assert sns_server.asked == []


def test_subscription_that_cannot_be_confirmed_yet_is_tried_again_and_sinks_nobody(
    sns_server: Amazon,
) -> None:
    sns_server.answers[CONFIRM.partition("amazonaws.com")[2]] = 500, {}, b""
    send(**subscription())
    send()
    drain_receipts(budget=10)
    waiting, done = Receipt.objects.order_by("state").reverse()
    assert (waiting.state, waiting.attempts, done.state) == ("pending", 1, "parked")
    assert "status 500" in waiting.error
    assert "Token" not in waiting.error


def test_end_of_a_subscription_is_noted(
    sns_server: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    send(**subscription(Type="UnsubscribeConfirmation"))
    drain_receipts(budget=10)
    assert Receipt.objects.get().outcome[0]["kind"] == "subscription ended"
    assert not any("Confirm" in path for path in sns_server.asked)
    assert any("subscription to SNS ended" in entry.getMessage() for entry in caplog.records)


def test_greeting_of_a_topic_is_of_no_consequence(sns_server: Amazon) -> None:
    greeting = "Successfully validated SNS topic for Amazon SES event publishing."
    assert send(Message=greeting).status_code == 200
    drain_receipts(budget=10)
    receipt = Receipt.objects.get()
    assert (receipt.state, receipt.outcome[0]["kind"]) == ("applied", "other")


def test_topic_in_china_has_its_own_hosts(settings: Any, sns_server: Amazon) -> None:
    topic = "arn:aws-cn:sns:cn-north-1:123456789012:shop-mail"
    settings.SES_TOPIC_ARNS = [topic]
    url = CERTIFICATES[0].replace(HOST, HOST_IN_CHINA)
    assert send(TopicArn=topic, SigningCertURL=url).status_code == 200
    outside = url.replace(".com.cn", ".com")
    assert send(TopicArn=topic, SigningCertURL=outside).status_code == 401
    assert send(TopicArn=topic).status_code == 401


def test_signature_over_another_canonical_form_is_refused(sns_server: Amazon) -> None:
    """Name and value run into each other unless each has its line."""
    document = envelope(EVENT, SignatureVersion="2", SigningCertURL=CERTIFICATES[0])
    document["Timestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    names = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
    text = "\n".join(f"{name}{document[name]}" for name in names).encode()
    signature = rsa_key(0).sign(text, padding.PKCS1v15(), SHA256())
    document["Signature"] = base64.b64encode(signature).decode()
    headers = {"x-amz-sns-topic-arn": TOPIC}
    assert post("ses", headers, json.dumps(document).encode()).status_code == 401
