"""Calls that have one mail with fields, and each recipient's values: everybody gets the mail that
the message shows."""

import base64
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from django.core.mail import EmailMessage

from delivery.backends import merged
from delivery.backends.http import GuardedBackend
from delivery.engine import deliver_batch
from delivery.models import Circuit, Message, Sender
from delivery.outbound import render_message
from tests.delivery.batchesp import MERGING, is_many, mails_of, name_of, taking
from tests.delivery.fakeesp import SUCCESS, Answer, FakeESP, fake_esp, hang, mail_in
from tests.delivery.ledger import messages_in
from tests.delivery.test_batches import (
    _set_up,
    deliver,
    limit_bytes,
    newsletter,
    sizes,
    states,
    time_passes,
)
from tests.factories import MessageFactory

__all__ = ["_set_up"]

pytestmark = pytest.mark.django_db

each_kind = pytest.mark.parametrize("kind", MERGING)


def wording(kind: str, mail: dict[str, Any]) -> tuple[str, tuple[str, str, str]]:
    """Of which message, and its subject, text and HTML."""
    if kind == "sendgrid":
        content = mail["content"]
        words = mail["subject"], content["text/plain"], content["text/html"]
        return mail["custom_args"]["message_uuid"], words
    if kind == "ses":
        if "Content" in mail:
            return _in_mime(mail["Content"]["Raw"]["Data"])
        metadata = json.loads(mail["headers"]["X-Metadata"])
        return metadata["message_uuid"], (mail["Subject"], mail["Text"], mail["Html"])
    (name,) = mail["v:message_uuid"]
    return name, (mail["subject"][0], mail["text"][0], mail["html"][0])


def _in_mime(data: str) -> tuple[str, tuple[str, str, str]]:
    mail = message_from_bytes(base64.b64decode(data), policy=policy.default)
    bodies = [mail.get_body([kind]) for kind in ("plain", "html")]
    texts = [body.get_content().replace("\r\n", "\n") for body in bodies if body is not None]
    metadata = json.loads(mail["X-Metadata"])
    return metadata["message_uuid"], (mail["Subject"], *texts)


def shown(esp: FakeESP, kind: str) -> dict[str, tuple[str, str, str]]:
    return dict(wording(kind, mail) for call in esp.calls for mail in mails_of(kind, call))


def call_people(messages: list[Message], name: Any) -> None:
    for number, message in enumerate(messages):
        context = {"payload": {}, "user": {"name": name(number)}}
        Message.objects.filter(pk=message.pk).update(context=context)


def insist_on_what_is_shown(esp: FakeESP, kind: str) -> None:
    found = shown(esp, kind)
    for message in Message.objects.all():
        rendered = render_message(message, message.sender)
        assert found[str(message.pk)] == (rendered.subject, rendered.text, rendered.html)


@each_kind
def test_what_is_merged_is_what_the_message_shows(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        odd = "<b>Ada</b> & 'co' -x- 100 % {{ y }} {{{ é\\\n"
        call_people(newsletter(esp, kind, 5), lambda number: odd * number)
        deliver()
        assert sum(sizes(esp, kind)) == 5
        insist_on_what_is_shown(esp, kind)
    assert states() == {"sent": 5}


@each_kind
def test_what_they_have_in_common_goes_once(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        call_people(newsletter(esp, kind, 5), "Ada{}".format)
        deliver()
        assert sizes(esp, kind) == [5]
        insist_on_what_is_shown(esp, kind)
        assert json.dumps(esp.calls).count("</html>") == 1


@each_kind
def test_mails_of_another_template_have_a_call_of_their_own(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        like = newsletter(esp, kind, 4)[0]
        other = MessageFactory.create(
            sender=like.sender, stream="marketing", topic=like.topic, origin_campaign="welcome"
        )
        deliver()
        assert sorted(sizes(esp, kind)) == [1, 4]
        assert {other.pk} in [messages_in(mail_in(body)) for _, body in esp.requests]
    assert states() == {"sent": 5}


@each_kind
def test_two_mails_to_one_address_are_in_two_calls(kind: str) -> None:
    """SendGrid would refuse the call, and with Mailgun one would get the other's values."""
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        first, second, *_ = newsletter(esp, kind, 5, concurrency=1)
        Message.objects.filter(pk=second.pk).update(contact=first.contact)
        deliver()
        assert sum(sizes(esp, kind)) == 5
        for call in esp.calls:
            if is_many(kind, call):
                names = [name_of(mail) for mail in mails_of(kind, call)]
                assert len(names) == len(set(names))
        insist_on_what_is_shown(esp, kind)
    assert states() == {"sent": 5}


def test_sendgrids_mail_that_differs_too_much_goes_alone_and_the_others_together() -> None:
    with fake_esp("sendgrid") as esp:
        esp.usual = taking("sendgrid")
        messages = newsletter(esp, "sendgrid", 9, concurrency=1)
        long = {"payload": {}, "user": {"name": "Ada " * 3_000}}
        Message.objects.filter(pk=messages[4].pk).update(context=long)
        deliver()
        assert sum(sizes(esp, "sendgrid")) == 9
        assert sorted(sizes(esp, "sendgrid"))[0] == 1
        assert len(esp.requests) <= 4
        alone = [call for call in esp.calls if "substitutions" not in json.dumps(call)]
        assert [str(messages[4].pk) in json.dumps(call) for call in alone] == [True]
    assert states() == {"sent": 9}


# --- What it costs -------------------------------------------------------------------------------


@dataclass
class Work:
    """How many mails were made, and how many bodies were compared with others."""

    made: int = 0
    divided: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    done = Work()
    prepare, divide = GuardedBackend.prepare, merged.skeleton_of

    def preparing(backend: GuardedBackend, message: EmailMessage) -> Any:
        done.made += 1
        return prepare(backend, message)

    def dividing(bodies: Sequence[str], *mark: Any, **neighbours: Any) -> Any:
        done.divided += len(bodies)
        return divide(bodies, *mark, **neighbours)

    monkeypatch.setattr(GuardedBackend, "prepare", preparing)
    monkeypatch.setattr(merged, "skeleton_of", dividing)
    # A busy machine does all of it in one hand-over, too.
    monkeypatch.setattr("delivery.handover.MAX_SECONDS", 60.0)
    return done


def unlike(number: int) -> str:
    """More than SendGrid takes of a mail's own."""
    return f"{number} " * 4_000


@pytest.mark.parametrize("count", [10, 100])
def test_mails_that_cannot_be_merged_are_made_once_and_compared_with_their_neighbours(
    count: int, work: Work
) -> None:
    with fake_esp("sendgrid") as esp:
        esp.usual = taking("sendgrid")
        call_people(newsletter(esp, "sendgrid", count), unlike)
        deliver_batch("marketing", limit=count)
        assert sizes(esp, "sendgrid") == [1] * count
    assert states() == {"sent": count}
    assert work.made == count
    # The text and the HTML, with those of the mail before and of the one behind.
    assert work.divided <= 2 * 2 * count


@each_kind
@pytest.mark.parametrize("count", [10, 100])
def test_mails_for_many_calls_are_made_once_and_compared_with_few_others(
    kind: str, count: int, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bytes(monkeypatch, kind, 10_000)
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        newsletter(esp, kind, count)
        deliver_batch("marketing", limit=count)
        assert sum(sizes(esp, kind)) == count
        assert max(sizes(esp, kind)) > 1
        assert len(esp.requests) > 1
    assert states() == {"sent": count}
    assert work.made == count
    # A multiple of the mails, whatever their number: it was their square.
    assert work.divided <= 27 * count


def test_mails_that_were_made_and_not_begun_are_given_back() -> None:
    with fake_esp("sendgrid") as esp:
        status, headers, body = SUCCESS["sendgrid"]
        esp.usual = taking("sendgrid")
        esp.script = [Answer(status, body, headers, takes=True), Answer(401, "who are you?")]
        call_people(newsletter(esp, "sendgrid", 10, concurrency=1), unlike)
        deliver()
        assert states() == {"sent": 1, "retry": 1, "queued": 8}
        time_passes()
        deliver()
        deliver()
        assert set(esp.ledger.values()) == {1}
        insist_on_what_is_shown(esp, "sendgrid")
    assert states() == {"sent": 10}


# --- Mailgun -------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["%recipient.name%", "%recipient%", "%recipient_email%"])
def test_mail_in_which_mailgun_would_fill_something_goes_alone(odd: str) -> None:
    with fake_esp("mailgun") as esp:
        esp.usual = taking("mailgun")
        messages = newsletter(esp, "mailgun", 5, concurrency=1)
        call_people(messages, lambda number: odd if number == 2 else f"Ada{number}")
        deliver()
        (alone,) = [call for call in esp.calls if odd in json.dumps(call)]
        assert "recipient-variables" not in alone
        assert len(mails_of("mailgun", alone)) == 1
        insist_on_what_is_shown(esp, "mailgun")
    assert states() == {"sent": 5}


def test_no_variable_of_mailguns_has_a_percent_sign_beside_it() -> None:
    with fake_esp("mailgun") as esp:
        esp.usual = taking("mailgun")
        call_people(newsletter(esp, "mailgun", 4), lambda number: f"100 %{number}% off")
        deliver()
        assert sizes(esp, "mailgun") == [4]
        ((form,),) = [esp.calls]
        assert "%%" not in form["text"][0] + form["html"][0]
        insist_on_what_is_shown(esp, "mailgun")
    assert states() == {"sent": 4}


@pytest.mark.parametrize("count", [1, 5])
def test_mailguns_greeting_at_a_wrong_url_is_no_acceptance(count: int) -> None:
    with fake_esp("mailgun") as esp:
        usual, esp.usual = esp.usual, Answer(200, "Mailgun Magnificent API")
        newsletter(esp, "mailgun", count)
        deliver()
        assert states() == {"retry": count}
        assert Circuit.objects.get().open_until is not None
        assert len(esp.requests) == 1
        esp.usual = usual
        time_passes()
        deliver()
        deliver()
    assert states() == {"sent": count}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("said", "state"),
    [("", "unknown"), ("Mail", "retry"), ('"Mailgun Magn', "retry"), ('{"id": "<2026', "sent")],
)
def test_mailguns_answer_that_stalls_is_what_it_has_begun_to_be(
    count: int, said: str, state: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{said}".encode()
    with fake_esp("mailgun") as esp:
        esp.usual = Answer(do=lambda handler: handler.wfile.write(head))
        newsletter(esp, "mailgun", count)
        deliver()
        assert len(esp.requests) == 1
    assert states() == {state: count}


# --- SES -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["{{ 7 }}", "{{", "{" * 5])
def test_mail_that_ses_would_read_as_a_template_goes_alone(odd: str) -> None:
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        messages = newsletter(esp, "ses", 5, concurrency=1)
        call_people(messages, lambda number: odd if number == 2 else f"Ada{number}")
        deliver()
        assert sorted(sizes(esp, "ses")) in ([1, 2, 2], [1, 1, 3], [1, 4])
        insist_on_what_is_shown(esp, "ses")
    assert states() == {"sent": 5}


@pytest.mark.parametrize("name", ["{{{}", "\\{}", "{}}}", "{{{}}}}}"])
def test_what_stands_beside_a_field_makes_no_other_thing_of_it(name: str) -> None:
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        call_people(newsletter(esp, "ses", 4), name.format)
        deliver()
        assert sizes(esp, "ses") == [4]
        insist_on_what_is_shown(esp, "ses")
    assert states() == {"sent": 4}


def test_what_stands_beside_a_field_makes_no_other_thing_of_it_in_half_a_call() -> None:
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        esp.script = [Answer(400, {}, {"x-amzn-ErrorType": "BadRequestException"})]
        call_people(newsletter(esp, "ses", 4), ["a", "b", "{c", "{d"].__getitem__)
        deliver()
        assert sizes(esp, "ses") == [4, 2, 2]
        insist_on_what_is_shown(esp, "ses")
    assert states() == {"sent": 4}


@pytest.mark.parametrize("status", ["SENT", "", None, ["FAILED"]])
def test_what_ses_says_of_a_mail_in_words_nobody_knows_is_in_doubt(status: Any) -> None:
    done, odd = {"Status": "SUCCESS", "MessageId": "esp-1"}, {"Status": status}
    with fake_esp("ses") as esp:
        esp.script = [Answer(200, {"BulkEmailEntryResults": [done, odd, done]}, takes=True)]
        newsletter(esp, "ses", 3)
        deliver()
    assert states() == {"sent": 2, "unknown": 1}


def test_call_to_ses_is_below_a_million_bytes_with_its_template() -> None:
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        call_people(newsletter(esp, "ses", 8, concurrency=1), lambda n: f"Ada{n} " * 15_000)
        deliver()
        deliver()
        assert sum(sizes(esp, "ses")) == 8
        assert max(sizes(esp, "ses")) > 1
        assert max(len(body) for _, body in esp.requests) <= 1_000_000
        insist_on_what_is_shown(esp, "ses")
    assert states() == {"sent": 8}


@pytest.mark.parametrize(
    "name", ["Größe & Söhne", "株式会社" * 20, 'A "Q" <b>, c', "=?utf-8?q?x?="]
)
def test_mail_to_ses_is_from_the_same_in_company_and_alone(name: str) -> None:
    senders = []
    for batch_size in (1, 50):
        with fake_esp("ses") as esp:
            esp.usual = taking("ses")
            first, *_ = newsletter(esp, "ses", 2, key=f"ses-{batch_size}", batch_size=batch_size)
            Sender.objects.filter(pk=first.sender_id).update(name=name)
            deliver()
            told = esp.calls[0].get("FromEmailAddress")
            alone = message_from_bytes(mail_in(esp.requests[0][1]))["From"]
            senders.append(told or " ".join(alone.split()))
    assert states() == {"sent": 4}
    assert len(set(senders)) == 1


def test_ses_gets_one_mail_per_call_unless_somebody_asks_for_more() -> None:
    with fake_esp("ses") as esp:
        newsletter(esp, "ses", 3, batch_size=None)
        deliver()
        assert sizes(esp, "ses") == [1] * 3
    assert states() == {"sent": 3}


@pytest.mark.parametrize("batch_size", [None, 50])
def test_call_to_ses_is_signed_as_amazon_signs(batch_size: int | None) -> None:
    """By botocore's own reckoning of what has come."""
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        newsletter(esp, "ses", 3, batch_size=batch_size)
        deliver()
        found = list(zip(esp.requests, esp.calls, strict=True))
        assert found
    for (headers, body), call in found:
        bulk = "BulkEmailEntries" in call
        path = "outbound-bulk-emails" if bulk else "outbound-emails"
        given = {name.lower(): value for name, value in headers.items()}
        _, scope, signed, signature = re.split(r" Credential=|, [A-Za-z]+=", given["authorization"])
        _, day, region, service, _ = scope.split("/")
        assert (day, service) == (given["x-amz-date"][:8], "ses")
        names = {name: given[name] for name in signed.split(";")}
        assert {"host", "x-amz-date", "content-type"} <= set(names)
        again = AWSRequest("POST", f"{esp.url}/v2/email/{path}", names, body)
        again.context["timestamp"] = given["x-amz-date"]
        keys = Credentials("", os.environ["TEST_AWS_SECRET_ACCESS_KEY"])
        signer = SigV4Auth(keys, service, region)
        text = signer.string_to_sign(again, signer.canonical_request(again))
        assert signer.signature(text, again) == signature
        assert os.environ["TEST_AWS_SECRET_ACCESS_KEY"].encode() not in body


@pytest.mark.parametrize("batch_size", [None, 50])
def test_call_to_ses_is_the_one_boto3_makes(batch_size: int | None) -> None:
    """Which checks the call against Amazon's own description of its API."""
    with fake_esp("ses") as esp:
        esp.usual = taking("ses")
        newsletter(esp, "ses", 3, batch_size=batch_size)
        deliver()
        (call, *_), ((headers, _), *_) = esp.calls, esp.requests
        client = boto3.client(
            "sesv2",
            region_name="eu-west-1",
            endpoint_url=esp.url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        esp.script = [Answer(200, {"BulkEmailEntryResults": []})]
        if batch_size:
            client.send_bulk_email(**call)
        else:
            raw = base64.b64decode(call["Content"]["Raw"]["Data"])
            client.send_email(**{**call, "Content": {"Raw": {"Data": raw}}})
        assert esp.calls[-1] == call
        theirs = {name.lower(): value for name, value in esp.requests[-1][0].items()}
        ours = {name.lower(): value for name, value in headers.items()}
        assert ours["content-type"] == theirs["content-type"]
        assert ours["authorization"].count(";") <= theirs["authorization"].count(";")


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing for botocore to find."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    return monkeypatch


@pytest.mark.audited(except_={"I10"}, why="what the search for keys raises is logged as it comes")
@pytest.mark.usefixtures("keyless")
def test_ses_without_keys_is_told_and_uses_up_no_attempt() -> None:
    with fake_esp("ses") as esp:
        newsletter(esp, "ses", 3, secret_env="")
        deliver()
        assert esp.requests == []
    assert states() == {"retry": 1, "queued": 2}
    assert Message.objects.order_by("failures").last().failures == 0  # type: ignore[union-attr]
    assert "NoCredentialsError" in Circuit.objects.get().reason


@pytest.mark.audited(except_={"I10"}, why="what the search for keys raises is logged as it comes")
def test_keys_that_are_not_there_are_looked_for_again(keyless: pytest.MonkeyPatch) -> None:
    with fake_esp("ses") as esp:
        newsletter(esp, "ses", 1, secret_env="")
        deliver()
        assert states() == {"retry": 1}
        keyless.setenv("AWS_ACCESS_KEY_ID", "a")
        keyless.setenv("AWS_SECRET_ACCESS_KEY", "b")
        time_passes()
        deliver()
    assert states() == {"sent": 1}


def test_keys_that_were_found_and_are_quoted_are_not_stored(keyless: pytest.MonkeyPatch) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "ASIA-the-id",
        "AWS_SECRET_ACCESS_KEY": "the/key",
        "AWS_SESSION_TOKEN": "the+token==",
    }
    for name, value in keys.items():
        keyless.setenv(name, value)
    with fake_esp("ses") as esp:
        newsletter(esp, "ses", 1, secret_env="")
        esp.script = [Answer(403, {"message": f"invalid: {' and '.join(keys.values())}!"})]
        deliver()
    assert Message.objects.get().detail.endswith('{"message": "invalid: *** and *** and ***!"}')


@pytest.mark.audited(except_={"I10"}, why="what the search for keys raises is logged as it comes")
def test_search_for_keys_that_outlasts_the_hand_over_is_told_and_is_nobody_elses_time(
    keyless: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    settings.EMAIL_TIMEOUT = 2
    (token := tmp_path / "token").write_text("a token")
    keyless.setattr("delivery.handover.MAX_SECONDS", 1.5)
    with fake_esp("ses") as roles, fake_esp("ses") as esp, fake_esp("postmark") as other:
        keyless.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        keyless.setenv("AWS_ROLE_ARN", f"arn:aws:iam::123456789012:role/{tmp_path.name}")
        keyless.setenv("AWS_ENDPOINT_URL_STS", roles.url)
        other.usual = taking("postmark")
        roles.usual = Answer(do=hang(300))
        newsletter(esp, "ses", 2, secret_env="")
        newsletter(other, "postmark", 2)
        deliver_batch("marketing", limit=25)
        assert len(roles.requests) == 1
    assert states() == {"sent": 2, "retry": 1, "queued": 1}
    assert Circuit.objects.get(provider__key="ses").open_until is not None


def test_search_for_keys_that_takes_long_leaves_time_for_the_mails(
    keyless: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (token := tmp_path / "token").write_text("a token")
    keyless.setattr("delivery.handover.MAX_SECONDS", 0.5)
    keys = (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        "<AccessKeyId>AKIDEXAMPLE</AccessKeyId><SecretAccessKey>a secret key</SecretAccessKey>"
        "<SessionToken>a session token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    with fake_esp("ses") as roles, fake_esp("ses") as esp, fake_esp("postmark") as other:
        keyless.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        keyless.setenv("AWS_ROLE_ARN", f"arn:aws:iam::123456789012:role/{tmp_path.name}")
        keyless.setenv("AWS_ENDPOINT_URL_STS", roles.url)
        esp.usual, other.usual = taking("ses"), taking("postmark")
        roles.usual = Answer(200, keys, {"Content-Type": "text/xml"}, seconds=1)
        newsletter(esp, "ses", 2, secret_env="")
        newsletter(other, "postmark", 2)
        deliver_batch("marketing", limit=25)
        assert len(roles.requests) == 1
    assert states() == {"sent": 4}


@pytest.mark.audited(except_={"I10"}, why="what the search for keys raises is logged as it comes")
@pytest.mark.parametrize("fault", ["refused", "silent", "no token"])
def test_role_that_cannot_be_taken_is_told_and_costs_the_others_nothing(
    keyless: pytest.MonkeyPatch, tmp_path: Path, settings: Any, fault: str
) -> None:
    """The service that gives out roles refuses or says nothing, or what is to be shown there is not
    in its file."""
    if fault == "silent":
        settings.EMAIL_TIMEOUT = 2
    token = tmp_path / "token"
    if fault != "no token":
        token.write_text("a token")
    with fake_esp("ses") as roles, fake_esp("ses") as esp, fake_esp("postmark") as other:
        keyless.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
        keyless.setenv("AWS_ROLE_ARN", f"arn:aws:iam::123456789012:role/{tmp_path.name}")
        keyless.setenv("AWS_ENDPOINT_URL_STS", roles.url)
        other.usual = taking("postmark")
        refusal = "<E><Error><Code>AccessDenied</Code></Error></E>"
        roles.usual = Answer(do=hang(300)) if fault == "silent" else Answer(403, refusal)
        newsletter(other, "postmark", 2)
        newsletter(esp, "ses", 2, secret_env="")
        deliver_batch("marketing", limit=25)
        assert esp.requests == []
        assert len(roles.requests) == (fault != "no token")
    assert states() == {"sent": 2, "retry": 1, "queued": 1}
    assert set(Message.objects.values_list("failures", flat=True)) == {0}
    assert Circuit.objects.get(provider__key="ses").open_until is not None
