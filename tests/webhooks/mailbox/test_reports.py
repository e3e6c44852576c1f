"""The corpus of mails, what each of them may do, and what no mail can do."""

import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from contacts.models import Consent
from delivery.bounces import BounceClass
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory, TopicFactory
from tests.patience import cpu_limit
from tests.webhooks.mailbox.corpus import EXPECTED, HERE, mail
from webhooks.mailbox import mime
from webhooks.mailbox.imap import MAX_MAIL
from webhooks.mailbox.reports import parse
from webhooks.models import Receipt
from webhooks.providers import ADAPTERS
from webhooks.reading import Malformed
from webhooks.receipts import NewReceipt, keep_receipts
from webhooks.services import drain_receipts
from webhooks.sources import SOURCES

RECEIVED = datetime(2026, 11, 25, 10, tzinfo=UTC)
SOMETHING = UUID("019ab000-0000-7000-8000-00000000abcd")
EVERY = sorted(EXPECTED)


def test_corpus_and_expectations_are_complete() -> None:
    assert {file.stem for file in HERE.glob("*.eml")} == set(EXPECTED)
    assert len(EXPECTED) >= 50
    kinds = Counter(told["kind"] for told in EXPECTED.values())
    assert set(kinds) == {
        *("bounced", "complained", "deferred", "delivered", "other", "unsubscribed")
    }


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("name", EVERY)
def test_mail_of_the_corpus(name: str, line_end: bytes) -> None:
    raw = mail(name, SOMETHING).replace(b"\r\n", line_end)
    (told,) = parse(raw, RECEIVED)
    expected = EXPECTED[name]
    assert (told.kind, told.bounce_class) == (expected["kind"], expected.get("class"))
    assert told.message_uuid == (SOMETHING if expected.get("proven", True) else None)
    assert (told.at, told.source, told.esp_id) == (RECEIVED, "mailbox", "")
    # Whoever writes it could name anybody.
    assert told.address is None


def apply(*mails: bytes) -> Receipt:
    keep_receipts([NewReceipt("mailbox", f"m{i}", raw) for i, raw in enumerate(mails)])
    drain_receipts(budget=20)
    return Receipt.objects.latest("pk")


def sent() -> Message:
    message: Message = MessageFactory(
        contact__email="ada@example.net", stream="marketing", topic=TopicFactory(), state="sent"
    )
    return message


_EFFECTS: dict[tuple[str, str | None], tuple[str, str] | None] = {
    ("bounced", "hard"): ("all", "hard_bounce"),
    ("bounced", "owner_changed"): ("all", "hard_bounce"),
    ("complained", "complaint"): ("marketing", "complaint"),
    ("unsubscribed", "unsubscribe"): ("marketing", "unsubscribe"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", EVERY)
def test_mail_suppresses_only_what_it_proves_and_only_if_the_address_is_no_good(name: str) -> None:
    message = sent()
    MessageFactory(contact__email="ada@example.com", state="sent")  # whom the forgeries name
    receipt = apply(mail(name, message.pk))
    assert (receipt.state, receipt.error) == ("applied", "")
    (outcome,) = receipt.outcome
    expected = EXPECTED[name]
    is_proven = expected.get("proven", True)
    assert outcome["message"] == (str(message.pk) if is_proven else None)
    effect = _EFFECTS.get((expected["kind"], expected.get("class"))) if is_proven else None
    found = list(Suppression.objects.values_list("email", "scope", "reason", "source"))
    assert found == ([("ada@example.net", *effect, "mailbox")] if effect else [])


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["yahoo-complaint", "unsubscribe-by-mail", "owner-changed"])
def test_consent_ends_with_it(name: str) -> None:
    message = sent()
    apply(mail(name, message.pk))
    of_topic = Consent.objects.get(contact=message.contact, topic=message.topic)
    assert of_topic.state == "withdrawn"


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["out-of-office-outlook", "challenge", "person-writes"])
def test_answer_leaves_the_message_as_it_is(name: str) -> None:
    message = sent()
    apply(mail(name, message.pk))
    message.refresh_from_db()
    moments = (message.bounced_at, message.complained_at, message.unsubscribed_at)
    assert moments == (None, None, None)


@pytest.mark.django_db
def test_w01_the_same_bounce_again_and_again_has_one_effect() -> None:
    message = sent()
    raw = mail("postfix-unknown-user", message.pk)
    apply(raw)
    before = Message.objects.filter(pk=message.pk).values().get()
    apply(*[raw + b"\r\n" * n for n in range(46)])
    assert Message.objects.filter(pk=message.pk).values().get() == before
    assert Suppression.objects.count() == 1
    assert message.bounces.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("turn", range(3))
def test_w02_order_does_not_matter(turn: int) -> None:
    message = sent()
    names = ["postfix-delayed", "postfix-unknown-user", "yahoo-complaint", "postfix-delivered"]
    apply(*[mail(name, message.pk) for name in names[turn:] + names[:turn]])
    message.refresh_from_db()
    assert None not in (message.delivered_at, message.bounced_at, message.complained_at)
    assert set(Suppression.objects.values_list("scope", "reason")) == {
        ("all", "hard_bounce"),
        ("marketing", "complaint"),
    }


@pytest.mark.django_db
def test_w03_bounce_clears_a_doubt() -> None:
    message = MessageFactory(state="unknown")
    apply(mail("qmail-no-mailbox", message.pk))
    message.refresh_from_db()
    assert message.state == "sent"
    assert message.bounced_at is not None


@pytest.mark.django_db
def test_w04_bounce_of_a_message_that_is_gone_is_recorded_and_suppresses_nobody() -> None:
    receipt = apply(mail("postfix-unknown-user", uuid4()))
    assert receipt.outcome == [
        {"kind": "bounced", "class": "hard", "message": None, "effects": ["no_address"]}
    ]
    assert not Suppression.objects.exists()


@pytest.mark.django_db
def test_w12_address_in_other_letters_is_the_one_the_mail_was_for() -> None:
    message = MessageFactory(contact__email="ada+shop@example.net", state="sent")
    apply(mail("token-in-capitals-through-a-forwarder", message.pk))  # Ada+Shop@EXAMPLE.NET
    assert Suppression.objects.get().email == message.email


@pytest.mark.django_db
def test_mailbox_is_no_address_on_the_web() -> None:
    assert "mailbox" in SOURCES
    assert "mailbox" not in ADAPTERS
    for path in ("/webhooks/mailbox/", "/webhooks/mailbox"):
        response = Client().post(path, mail("spam", SOMETHING), content_type="message/rfc822")
        assert response.status_code == 404
    assert not Receipt.objects.exists()


def nested(depth: int) -> bytes:
    levels = [
        f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth)
    ]
    return "".join(levels).encode() + b"\r\nthe end"


@pytest.mark.parametrize(
    "bomb",
    [
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n" * 30_000,
        nested(5_000),
        nested(mime.MAX_DEPTH + 1),
    ],
    ids=["parts", "depth", "just too deep"],
)
def test_s31_bomb_is_refused(bomb: bytes) -> None:
    with cpu_limit(), pytest.raises(Malformed, match="parts"):
        parse(bomb[:MAX_MAIL], RECEIVED)


HOSTILE = {
    "headers": b"X: y\r\n" * 50_000,
    "one header": b"Subject: " + b"=?utf-8?q?" * 25_000,
    "folds": b"Subject: x" + b"\r\n " * 80_000,
    "parameters": b"Content-Type: multipart/report" + b'; a="' * 50_000,
    "charset parameters": b"Content-Type: text/plain" + b"; charset*0*=x" * 18_000,
    "boundaries": b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"---\r\n" * 50,
    "dashes": b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"-" * 250_000,
    "blanks": b"From: mailer-daemon@x\r\nSubject: failure notice\r\n\r\n" + b" \t>" * 80_000,
    "tokens": b"To: x\r\n\r\n" + b"a" * 40 + b" " + (b"a" * 40 + b" ") * 6_000,
    "groups": b"Content-Type: message/delivery-status\r\n\r\n"
    + b"Action: failed\r\nStatus: 5.0.0\r\n\r\n" * 7_000,
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"A" * 250_000,
    "punycode": b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a" * 250_000,
    "huge number": b"Content-Type: text/plain; charset*" + b"9" * 5_000 + b"=x\r\n\r\nx",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_s31_hostile_mail_takes_neither_long_nor_much_room(name: str) -> None:
    raw = HOSTILE[name][:MAX_MAIL]
    parse(raw[:1_000], RECEIVED)  # what is imported at the first use
    tracemalloc.start()
    with cpu_limit():
        try:
            told = parse(raw, RECEIVED)
        except Malformed:
            told = []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * len(raw) + 4_000_000
    assert all(one.message_uuid is None for one in told)


LINES = sorted({line for name in EVERY for line in mail(name, SOMETHING).splitlines(keepends=True)})
PIECES = st.sampled_from(LINES) | st.binary(max_size=60)


@given(st.lists(PIECES, max_size=20).map(b"".join))
def test_any_bytes_mean_something_or_are_malformed(raw: bytes) -> None:
    try:
        (told,) = parse(raw, RECEIVED)
    except Malformed:
        return
    assert told.address is None
    assert told.message_uuid in (None, SOMETHING)
    assert "\x00" not in told.detail


@given(st.binary(max_size=300))
def test_no_bytes_prove_a_message(raw: bytes) -> None:
    try:
        (told,) = parse(b"From: mailer-daemon@x\r\nSubject: failure notice\r\n" + raw, RECEIVED)
    except Malformed:
        return
    assert told.message_uuid is None


def test_length_of_a_text_does_not_matter_for_its_class() -> None:
    long_one = mail("qmail-no-mailbox", SOMETHING) + b"x" * 200_000
    told: Any = parse(long_one, RECEIVED)[0]
    assert told.bounce_class == "hard"


def dsn(*recipients: str) -> bytes:
    """A report about these recipients, with as much text for people as there is room for."""
    return (
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
        + b"word " * 20_000
        + b"\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        + "\r\n\r\n".join(recipients).encode()
        + b"\r\n--b--"
    )


def test_s31_few_recipients_of_a_report_are_judged_and_its_words_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[str] = []

    def note(text: str, *, code: str = "") -> BounceClass:
        judged.append(text)
        return BounceClass.HARD

    monkeypatch.setattr("webhooks.mailbox.dsn.classify_reply", note)
    failed = "Final-Recipient: rfc822; x@example.com\r\nAction: failed\r\nStatus: 5.0.0"
    (feedback,) = parse(dsn(*[failed] * 3_000), datetime.now(UTC))
    assert (feedback.kind, feedback.bounce_class) == ("bounced", "hard")
    assert len(judged) == 10
    assert len({id(text) for text in judged}) == 1
