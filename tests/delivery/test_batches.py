"""Calls with many mails, through the engine, against servers that answer as providers do."""

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from django.db.models.functions import Now

from delivery import pace, providers, recovery, turns
from delivery.backends.batches import BATCHINGS
from delivery.backends.batching import Part
from delivery.backends.client import response
from delivery.calls import shown
from delivery.engine import deliver_batch, drain
from delivery.models import Circuit, Message, Provider
from delivery.providers import TRAITS
from delivery.services import resend_unknown, stop_sending
from delivery.switches import active_switches
from delivery.verdicts import Outcome
from suppression.models import Suppression
from tests.delivery import batchesp, fakeesp
from tests.delivery.batchesp import (
    ALL_OR_NONE,
    KEYED,
    KINDS,
    MERGING,
    mails_of,
    refusing_all,
    taking,
)
from tests.delivery.fakeesp import Answer, FakeESP, call_in, fake_esp
from tests.factories import (
    MessageFactory,
    ProviderFactory,
    SenderFactory,
    TemplateFactory,
    TopicFactory,
)

pytestmark = pytest.mark.django_db

NAMES = {kind: [f"TEST_{option}".upper() for option in t.secrets] for kind, t in TRAITS.items()}
each_kind = pytest.mark.parametrize("kind", KINDS)
unkeyed_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in KEYED])
keyed_kind = pytest.mark.parametrize("kind", KEYED)
telling_kind = pytest.mark.parametrize("kind", [k for k in KINDS if k not in ALL_OR_NONE])


@pytest.fixture(autouse=True)
def _set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delivery.offering._REPEAT_PAUSE", 0.01)
    for names in NAMES.values():
        for name in names:
            monkeypatch.setenv(name, f"secret-of-{name}")


def newsletter(esp: FakeESP, kind: str, count: int, **provider: Any) -> list[Message]:
    fields = {"key": kind, "backend": kind, "api_url": esp.url, "rate_limit": 10_000}
    if kind == "ses":
        fields["batch_size"] = 50  # unasked it gets one mail per call
    row = ProviderFactory(**{**fields, "secret_env": ", ".join(NAMES[kind]), **provider})
    sender = SenderFactory(provider=row, email="shop@shop.example")
    return MessageFactory.create_batch(
        count,
        sender=sender,
        stream="marketing",
        topic=TopicFactory(),
        template_version=TemplateFactory().published,
        origin_campaign="welcome",
    )


def deliver() -> None:
    drain("marketing", budget=5)


def time_passes() -> None:
    Message.objects.filter(state__in=("retry", "queued")).update(due_at=Now())
    Circuit.objects.update(open_until=None, slow_until=None)


def calls_in_doubt(kind: str) -> int:
    """How many calls there are for mails in doubt: where calls have keys they are made again."""
    return 3 if kind in KEYED else 1


def states() -> Counter[str]:
    return Counter(Message.objects.values_list("state", flat=True))


def sizes(esp: FakeESP, kind: str) -> list[int]:
    return [len(mails_of(kind, call)) for call in esp.calls]


def limit_bytes(monkeypatch: pytest.MonkeyPatch, kind: str, most: int) -> None:
    """Of a call."""
    traits = TRAITS[kind]
    assert traits.batch is not None
    small = replace(traits, batch=replace(traits.batch, size=most))
    patched = {**TRAITS, kind: small}
    monkeypatch.setattr("delivery.routes.TRAITS", patched)
    monkeypatch.setattr(providers, "TRAITS", patched)


# --- What is asked -------------------------------------------------------------------------------


NAMED_HERE: dict[str, Any] = {
    "sendgrid": lambda mail: mail["custom_args"]["anymail_id"],
    "mailgun": lambda mail: mail["h:Message-Id"][0],
}


@each_kind
def test_mails_of_a_batch_go_in_one_call_each_with_what_is_its_own(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        messages = newsletter(esp, kind, 7)
        deliver()
        assert sizes(esp, kind) == [7]
        assert dict(esp.ledger) == {message.pk: 1 for message in messages}
        ((headers, body),) = esp.requests
    assert b"secret-of" not in body
    assert states() == {"sent": 7}
    by_name = {batchesp.name_of(mail): mail for mail in mails_of(kind, call_in(body))}
    for message in Message.objects.all():
        mail = by_name[name := f"esp-{message.email}"]
        assert message.esp_id == (NAMED_HERE[kind](mail) if kind in NAMED_HERE else name)
        text = json.dumps(mail)
        # Message-ID (SES takes none), List-Unsubscribe with a token, metadata: nobody else's.
        assert text.count(str(message.pk)) >= (1 if kind == "ses" else 2)
        assert not any(str(other.pk) in text for other in messages if other.pk != message.pk)
        assert "List-Unsubscribe" in text
        assert "One-Click" in text
        assert "welcome" in text or kind == "brevo"
    assert (kind == "resend") == ("Idempotency-Key" in headers)


GOLDEN: dict[str, Any] = {
    "postmark": {"From", "To", "Subject", "TextBody", "HtmlBody", "Headers", "Metadata", "Tag"},
    "resend": {"from", "to", "subject", "text", "html", "headers"},
    "mailjet": {
        *("From", "To", "Subject", "TextPart", "HTMLPart", "Headers"),
        *("EventPayload", "CustomCampaign"),
    },
    "brevo": {"to", "subject", "textContent", "htmlContent", "headers"},
    "sendgrid": {"to", "subject", "content", "headers", "custom_args", "categories"},
    "ses": {"to", "headers", "Subject", "Text", "Html"},
    "mailgun": {
        *("from", "to", "subject", "text", "html", "o:tag", "v:message_uuid", "h:Message-Id"),
        *("h:Date", "h:Auto-Submitted", "h:X-Auto-Response-Suppress", "h:List-Unsubscribe"),
        *("h:List-Unsubscribe-Post", "h:List-Id", "h:Feedback-Id"),
    },
}


@each_kind
def test_batch_has_the_shape_the_provider_documents(kind: str) -> None:
    paths: list[str] = []
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        do_post = fakeesp._Handler.do_POST

        def noting(handler: Any) -> None:
            paths.append(handler.path)
            do_post(handler)

        fakeesp._Handler.do_POST = noting  # type: ignore[method-assign]
        try:
            newsletter(esp, kind, 2)
            deliver()
        finally:
            fakeesp._Handler.do_POST = do_post  # type: ignore[method-assign]
        (call,) = esp.calls
    assert paths == [f"/{batchesp.PATHS[kind]}"]
    assert [set(mail) for mail in mails_of(kind, call)] == [GOLDEN[kind]] * 2
    if kind == "brevo":
        assert set(call) == {
            *("sender", "subject", "htmlContent", "tags", "headers", "messageVersions")
        }
        assert call["tags"] == ["welcome"]
        assert set(call["headers"]) == {"idempotencyKey"}
    if kind == "mailjet":
        assert set(call) == {"Messages"}
    if kind == "ses":
        assert set(call) == {
            *("FromEmailAddress", "ReplyToAddresses", "DefaultContent", "BulkEmailEntries")
        }
        assert set(mails_of(kind, call)[0]["headers"]) == {
            *("Auto-Submitted", "X-Auto-Response-Suppress", "List-Unsubscribe"),
            *("List-Unsubscribe-Post", "List-ID", "Feedback-ID", "X-Metadata", "X-Tag"),
        }
    if kind == "sendgrid":
        assert set(call) == {"from", "content", "categories", "personalizations"}
    if kind == "resend":
        assert esp.requests[0][0]["x-batch-validation"] == "permissive"


@each_kind
def test_receipts_go_alone(kind: str) -> None:
    with fake_esp(kind) as esp:
        newsletter(esp, kind, 3)
        Message.objects.update(stream="transactional")
        drain("transactional", budget=5)
        assert sizes(esp, kind) == [1] * 3
        assert not any(batchesp.is_many(kind, call) for call in esp.calls)
    assert states() == {"sent": 3}


@pytest.mark.parametrize(
    ("wanted", "calls"), [(None, [7]), (0, [7]), (1, [1] * 7), (3, [3, 3, 1]), (900, [7])]
)
def test_provider_row_says_how_many_go_in_a_call(wanted: int | None, calls: list[int]) -> None:
    with fake_esp("postmark") as esp:
        esp.usual = taking("postmark")
        newsletter(esp, "postmark", 7, batch_size=wanted, concurrency=1)
        for _ in calls:
            deliver()  # a busy machine gives the rest of a batch back
        assert sizes(esp, "postmark") == calls
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 7}


# What is merged has most of it in common, so it takes less for as many.
@pytest.mark.parametrize(
    ("kind", "most"), [(kind, 10_000 if kind in MERGING else 16_000) for kind in KINDS]
)
def test_call_is_no_larger_than_the_provider_allows(
    kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_bytes(monkeypatch, kind, most)
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        newsletter(esp, kind, 9)
        deliver()
        assert sum(sizes(esp, kind)) == 9
        assert 1 < len(esp.requests) < 9
        assert max(len(body) for _, body in esp.requests) <= most
    assert states() == {"sent": 9}


def test_mails_of_one_call_share_their_sender_and_campaign_where_it_takes_them_once() -> None:
    with fake_esp("brevo") as esp:
        esp.usual = taking("brevo")
        first, second, *_ = newsletter(esp, "brevo", 6)
        other = SenderFactory(provider=first.sender.provider, email="books@shop.example")
        Message.objects.filter(pk=first.pk).update(sender=other)
        Message.objects.filter(pk=second.pk).update(origin_campaign="farewell")
        deliver()
        found = {(c["sender"]["email"], *c.get("tags", [])[:1]): c for c in esp.calls}
        assert len(found) == 3
        assert sorted(sizes(esp, "brevo")) == [1, 1, 4]
    assert states() == {"sent": 6}


# --- What is answered ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postmark", "resend", "mailjet", "ses"])
def test_e18_each_mail_has_the_fate_the_answer_names_for_it(kind: str) -> None:
    with fake_esp(kind) as esp:
        messages = newsletter(esp, kind, 6)
        bad = {messages[1].email, messages[4].email}
        esp.usual = taking(kind, lambda mail: any(address in mail for address in bad))
        deliver()
        assert len(esp.requests) == 1
        assert len(esp.ledger) == 4
    for message in Message.objects.all():
        refused = message.email in bad
        assert message.state == ("failed" if refused else "sent"), message.detail
        assert message.esp_id == ("" if refused else f"esp-{message.email}")


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        ({"ErrorCode": 406, "Message": "inactive"}, "failed"),
        ({"ErrorCode": 429, "Message": "slower"}, "retry"),
        ({"ErrorCode": 999, "Message": "something new"}, "failed"),
        ({"ErrorCode": None, "Message": "?"}, "failed"),
        ({"Message": "?"}, "unknown"),
    ],
)
def test_postmarks_error_means_in_company_what_it_means_alone(entry: Any, state: str) -> None:
    if entry.get("ErrorCode"):
        with fake_esp("postmark") as alone:
            alone.usual = Answer(422, entry)
            newsletter(alone, "postmark", 1, batch_size=1)
            deliver_batch("marketing", limit=1)
        assert states() == {state: 1}
        Message.objects.all().delete()
        Circuit.objects.all().delete()
        Provider.objects.update(key="alone")

    def judge(body: bytes) -> Answer:
        answer = taking("postmark", lambda mail: bad in mail).judge(body)  # type: ignore[misc]
        place = next(n for n, told in enumerate(answer.body) if told["ErrorCode"])
        answer.body[place] = entry
        return answer

    with fake_esp("postmark") as esp:
        esp.usual = Answer(judge=judge)
        bad = newsletter(esp, "postmark", 3)[1].email
        deliver_batch("marketing", limit=3)
    assert states() == {"sent": 2, state: 1}
    assert Message.objects.get(email=bad).state == state


@pytest.mark.parametrize("entry", [{}, {"id": None}, {"id": ""}, {"index": 1}, None, "esp-1"])
def test_mail_that_resend_names_among_those_taken_but_without_an_id_is_in_doubt(entry: Any) -> None:
    asked: list[str] = []

    def judge(body: bytes) -> Answer:
        asked.extend(batchesp.name_of(mail) for mail in mails_of("resend", call_in(body)))
        bad = asked[0].removeprefix("esp-")
        answer = taking("resend", lambda mail: bad in mail).judge(body)  # type: ignore[misc]
        answer.body["data"][1] = entry
        return answer

    with fake_esp("resend") as esp:
        esp.usual = Answer(judge=judge)
        newsletter(esp, "resend", 4)
        deliver()
        assert len(esp.requests) == 1
    found = {f"esp-{message.email}": message.state for message in Message.objects.all()}
    assert [found[name] for name in asked] == ["failed", "sent", "unknown", "sent"]


LISTED = {
    "ses": "BulkEmailEntryResults",
    "resend": "data",
    "mailjet": "Messages",
    "brevo": "messageIds",
}


def entries_of(kind: str, answer: Answer) -> list[Any]:
    """What a success says of each mail, to be changed in place."""
    entries: list[Any] = answer.body[LISTED[kind]] if kind in LISTED else answer.body
    return entries


@telling_kind
@pytest.mark.parametrize("missing", [range(5), range(3, 5), range(1, 2), range(1)])
def test_answer_about_fewer_mails_leaves_all_of_them_in_doubt(kind: str, missing: range) -> None:
    def judge(body: bytes) -> Answer:
        answer = taking(kind).judge(body)  # type: ignore[misc]
        told = entries_of(kind, answer)
        del told[missing.start : missing.stop]
        return answer

    with fake_esp(kind) as esp:
        esp.usual = Answer(judge=judge)
        newsletter(esp, kind, 5)
        for _ in range(3):
            deliver()
            time_passes()
        assert len(esp.requests) == calls_in_doubt(kind)
    # One answer, however many mails it may have been about.
    assert Circuit.objects.get().failures <= 1
    # Whose the others are is not known either: each is told by its place alone.
    assert states() == {"unknown": 5}
    assert set(Message.objects.values_list("esp_id", flat=True)) == {""}


@pytest.mark.parametrize("kind", ["postmark", "resend", "mailjet", "ses"])
def test_refusal_at_a_place_that_is_not_sure_fails_nobody(kind: str) -> None:
    def judge(body: bytes) -> Answer:
        answer = taking(kind, lambda mail: bad in mail).judge(body)  # type: ignore[misc]
        told = entries_of(kind, answer)
        told.insert(0, told[0])
        return answer

    with fake_esp(kind) as esp:
        esp.usual = Answer(judge=judge)
        bad = newsletter(esp, kind, 5)[2].email
        deliver()
        assert len(esp.requests) == calls_in_doubt(kind)
    assert states() == {"unknown": 5}


NAMING = ("postmark", "mailjet")


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("refused", [None, 2])
def test_entry_that_names_somebody_else_is_not_believed(kind: str, refused: int | None) -> None:
    asked: list[str] = []

    def judge(body: bytes) -> Answer:
        asked.extend(batchesp.name_of(mail) for mail in mails_of(kind, call_in(body)))
        bad = "nobody" if refused is None else asked[refused].removeprefix("esp-")
        answer = taking(kind, lambda mail: bad in mail).judge(body)  # type: ignore[misc]
        told = entries_of(kind, answer)
        told[1], told[3] = told[3], told[1]
        return answer

    with fake_esp(kind) as esp:
        esp.usual = Answer(judge=judge)
        newsletter(esp, kind, 5)
        for _ in range(3):
            deliver()
            time_passes()
        assert len(esp.requests) == 1
    found = {f"esp-{m.email}": (m.state, m.esp_id) for m in Message.objects.all()}
    # A refusal names nobody, so it may be one of those whose places were mixed up.
    doubtful = {1, 3} if refused is None else {1, 2, 3}
    assert [found[name] for name in asked] == [
        ("unknown", "") if place in doubtful else ("sent", name) for place, name in enumerate(asked)
    ]


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize(
    ("asked", "named", "is_same"),
    [
        ("ada@example.com", "Ada@Example.COM", True),
        ("Ada@example.com", '"Lovelace, Ada" <ada@example.com>', True),
        ("ada@xn--bcher-kva.example", "ada@bücher.example", True),
        ("ada@example.com", "", True),
        ("ada@example.com", None, True),
        ("ada@example.com", "adam@example.com", False),
        ("ada@example.com", '"ada@example.com" <adam@example.com>', False),
        ("ada@example.com", "ada", False),
    ],
)
def test_recipient_is_known_however_the_provider_spells_it(
    kind: str, asked: str, named: str | None, is_same: bool
) -> None:
    entry = {
        "postmark": [{"ErrorCode": 0, "MessageID": "esp-1", "To": named}],
        "mailjet": {
            "Messages": [{"Status": "success", "To": [{"Email": named, "MessageID": "esp-1"}]}]
        },
    }[kind]
    batching = BATCHINGS[TRAITS[kind].backend]
    answer = response(200, json.dumps(entry).encode(), {})
    (verdict,) = batching.of_answer_to_many(answer, [Part(None, asked)], TRAITS[kind]) or ()
    assert (verdict.outcome, verdict.esp_id) == (
        (Outcome.ACCEPTED, "esp-1") if is_same else (Outcome.UNKNOWN, "")
    )


def test_mailjets_refusal_of_a_whole_call_leaves_no_doubt() -> None:
    refusal = {"StatusCode": 400, "ErrorMessage": "?", "ErrorRelatedTo": ["Messages"]}
    with fake_esp("mailjet") as esp:
        esp.usual = Answer(400, refusal)
        newsletter(esp, "mailjet", 4)
        deliver()
    assert states() == {"failed": 4}


@pytest.mark.parametrize("body", ["", " ", "{", '{"Messages": [{"Status": "success", "To'])
def test_mailjets_400_that_ends_too_soon_leaves_the_mails_in_doubt(body: str) -> None:
    """It is its answer for each mail when one was not taken; the others were."""
    with fake_esp("mailjet") as esp:
        esp.script = [Answer(400, body, takes=True)]
        newsletter(esp, "mailjet", 4)
        for _ in range(3):
            deliver()
            time_passes()
        assert len(esp.requests) == 1
    assert states() == {"unknown": 4}


@telling_kind
@pytest.mark.parametrize("body", ["", "not json", "{}", "[1, 2, 3]", '{"data": 1}', "null"])
def test_success_that_says_nothing_of_the_mails_leaves_them_in_doubt(kind: str, body: str) -> None:
    with fake_esp(kind) as esp:
        esp.script = [Answer(200, body, takes=True)] * 9
        newsletter(esp, kind, 3)
        deliver()
        assert len(esp.requests) == calls_in_doubt(kind)
    assert states() == {"unknown": 3}


@each_kind
@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("poisons", [1, 2])
def test_refusal_of_all_because_of_one_fails_that_one_only(
    kind: str, status: int, poisons: int
) -> None:
    with fake_esp(kind) as esp:
        messages = newsletter(esp, kind, 16)
        bad = {message.email for message in messages[5 : 5 + 4 * poisons : 4]}
        poison = [f'"{address}"' for address in bad]
        esp.usual = refusing_all(kind, status, lambda mail: any(p in mail for p in poison))
        deliver()
        assert set(esp.ledger.values()) == {1}
        assert len(esp.requests) <= 1 + 8 * poisons
    failed = set(Message.objects.filter(state="failed").values_list("email", flat=True))
    assert failed == bad
    assert states() == {"sent": 16 - poisons, "failed": poisons}
    assert not Suppression.objects.exists()


@each_kind
def test_refusal_of_all_because_of_one_spares_the_others_when_its_reason_is_cut_off(
    kind: str,
) -> None:
    with fake_esp(kind) as esp:
        messages = newsletter(esp, kind, 8)
        poison = f'"{messages[5].email}"'

        def judge(body: bytes) -> Answer:
            answer = refusing_all(kind, 422, lambda mail: poison in mail).judge
            assert answer is not None
            found = answer(body)
            return found if found.takes else Answer(422, '{"message": "something is wr')

        esp.usual = Answer(judge=judge)
        for _ in range(4):
            deliver()
            time_passes()
        assert set(esp.ledger.values()) == {1}
    assert states()["sent"] == 7
    assert Message.objects.exclude(state="sent").get().email == messages[5].email


def test_search_that_takes_too_long_is_given_up_and_goes_on_with_the_next_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delivery.offering._SEARCH_SECONDS", 0.0)
    with fake_esp("postmark") as esp:
        messages = newsletter(esp, "postmark", 16)
        poison = f'"{messages[15].email}"'
        esp.usual = refusing_all("postmark", 422, lambda mail: poison in mail)
        deliver_batch("marketing", limit=16)
        # All of them, and the half without the poison.
        assert sizes(esp, "postmark") == [16, 8]
        assert states() == {"sent": 8, "queued": 8}
        for _ in range(9):
            deliver()
            time_passes()
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 15, "failed": 1}


@each_kind
@pytest.mark.parametrize("status", [401, 502])
def test_long_answer_to_many_mails_is_read_once(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def reading(verdict: Any, route: Any) -> Any:
        read.append(verdict.detail)
        return shown(verdict, route)

    monkeypatch.setattr("delivery.offering.shown", reading)
    with fake_esp(kind) as esp:
        esp.usual = Answer(status, "oops " * 4_000)
        newsletter(esp, kind, 9)
        deliver_batch("marketing", limit=9)
    assert len(read) == 1


@pytest.fixture
def _short_lease(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over after a few calls that take their time; who takes over does so at once."""
    settings.LEASE_SECONDS = 3
    look = turns.Turns.look

    def looking(turns: Any) -> None:
        if Message.objects.filter(state="dispatching", lease_until__lt=Now()).exists():
            recovery.recover()
            assert states() == {"unknown": 16}
            # The provider does not have them, as whoever looks into its log can see.
            resend_unknown(list(Message.objects.values_list("pk", flat=True)[:4]))
        look(turns)

    monkeypatch.setattr(turns.Turns, "look", looking)


def slowly(answer: Answer) -> Answer:
    """The same, but for a refusal that takes its time."""

    def judge(body: bytes) -> Answer:
        assert answer.judge is not None
        found = answer.judge(body)
        return replace(found, seconds=0.0 if found.takes else 1.2)

    return Answer(judge=judge)


@pytest.mark.usefixtures("_short_lease")
@pytest.mark.parametrize("kind", ["postmark", "resend", "mailgun"])
def test_nothing_is_offered_again_once_the_lease_is_over(kind: str) -> None:
    """They may be somebody else's by then, and would be there twice."""
    with fake_esp(kind) as esp:
        messages = newsletter(esp, kind, 16)
        poison = f'"{messages[0].email}"'
        esp.usual = slowly(refusing_all(kind, 422, lambda mail: poison in mail))
        deliver_batch("marketing", limit=16)
        assert not esp.ledger
        # What was offered and not taken is nobody's doubt.
        assert states() == {"queued": 16}


@each_kind
@pytest.mark.parametrize("status", [422, 500])
def test_r06_switch_bites_between_the_calls_for_the_same_mails(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_thrown = threading.Event()
    monkeypatch.setattr("delivery.offering._REPEAT_PAUSE", 1.0)

    def looking() -> Any:
        # In the same transaction as the test's, which no other connection could see into.
        if is_thrown.is_set():
            stop_sending("campaign", "welcome")
        return active_switches()

    def refusing(_: bytes) -> Answer:
        is_thrown.set()
        time.sleep(1.0)
        return Answer(status, "what?")

    monkeypatch.setattr("delivery.engine.active_switches", looking)
    with fake_esp(kind) as esp:
        esp.usual = Answer(judge=refusing)
        newsletter(esp, kind, 16)
        deliver_batch("marketing", limit=16)
        # What was on its way, and one more if the look was late.
        assert len(esp.requests) <= 2
    assert states() == {"queued" if status == 422 else "unknown": 16}


@each_kind
@pytest.mark.parametrize(
    ("status", "body"), [(400, "what has changed here?"), (422, '{"message": "something is wr')]
)
def test_refusal_of_everything_costs_a_few_calls_and_fails_few(
    kind: str, status: int, body: str
) -> None:
    with fake_esp(kind) as esp:
        esp.usual = Answer(status, body)
        newsletter(esp, kind, 50)
        for _ in range(9):
            deliver()
        assert len(esp.requests) <= 4 * 30
        assert Circuit.objects.get().open_until is not None
    assert states()["failed"] <= 2 * turns.REFUSALS
    assert states()["queued"] >= 10


@each_kind
def test_e01_pause_is_asked_for_once_and_costs_no_attempt(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        esp.script = [Answer(429, "slow down", {"Retry-After": "30"})]
        newsletter(esp, kind, 20)
        for _ in range(3):
            deliver()
        assert len(esp.requests) == 1
        assert set(Message.objects.values_list("failures", flat=True)) == {0}
        assert states() == {"retry": 20}
        assert Circuit.objects.get().slow_until is not None
        time_passes()
        deliver()
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 20}


@pytest.mark.parametrize("batch_size", [1, 50])
@pytest.mark.parametrize(
    "body",
    [
        {"__type": "com.amazonaws.ses#ThrottlingException", "message": "Too fast."},
        {"__type": "SendingPausedException:http://internal.amazon.example/", "message": "?"},
        {"code": "AccessDeniedException", "message": "?"},
    ],
)
def test_code_of_ses_that_stands_in_the_body_alone_counts_too(batch_size: int, body: Any) -> None:
    with fake_esp("ses") as esp:
        esp.usual = Answer(400, body)
        newsletter(esp, "ses", 3, batch_size=batch_size)
        deliver()
        assert len(esp.requests) == 1
    assert states()["failed"] == 0
    circuit = Circuit.objects.get()
    assert circuit.open_until or circuit.slow_until


@each_kind
def test_account_that_is_closed_opens_the_circuit_and_loses_no_mail(kind: str) -> None:
    with fake_esp(kind) as esp:
        esp.script = [Answer(401, "who are you?")]
        newsletter(esp, kind, 20)
        deliver()
        assert len(esp.requests) == 1
    assert states() == {"retry": 20}
    circuit = Circuit.objects.get()
    assert circuit.open_until is not None
    assert circuit.trips == 1


def test_calls_are_counted_where_the_provider_counts_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []

    def take(draws: Any) -> list[float]:
        drawn.append(sum(bucket.name == "pace:resend" for draw in draws for bucket in draw))
        return [0.0] * len(draws)

    monkeypatch.setattr("delivery.pace.take", take)
    with fake_esp("resend") as esp:
        esp.usual = taking("resend")
        newsletter(esp, "resend", 9, batch_size=3)
        deliver()
        assert sizes(esp, "resend") == [3] * 3
    assert sum(drawn) == 3


@pytest.mark.parametrize("status", [422, 502])
def test_calls_for_the_same_mails_are_counted_too(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    take = pace.take

    def counted(draws: Any) -> list[float]:
        drawn.append(sum(bucket.name == "pace:resend" for draw in draws for bucket in draw))
        return take(draws)

    monkeypatch.setattr("delivery.pace.take", counted)
    with fake_esp("resend") as esp:
        esp.usual = Answer(status, "what?")
        newsletter(esp, "resend", 16)
        deliver_batch("marketing", limit=16)
        assert len(esp.requests) > 2
        assert sum(drawn) == len(esp.requests)


def test_calls_for_the_same_mails_keep_to_the_pace_and_the_rest_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It searches on until one is known, however long that takes; then only as long as it may."""
    monkeypatch.setattr("delivery.offering._SEARCH_SECONDS", 0.0)
    with fake_esp("resend") as esp:
        esp.usual = Answer(422, "what?")
        newsletter(esp, "resend", 8, rate_limit=2)
        deliver_batch("marketing", limit=8)
        assert sizes(esp, "resend") == [8, 4, 2, 1]
    assert states() == {"failed": 1, "queued": 7}


@each_kind
def test_call_that_cannot_be_made_at_all_fails_nobody_and_stops_the_provider(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError

    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        newsletter(esp, kind, 60, batch_size=1)
        with monkeypatch.context() as patched:
            patched.setattr("delivery.backends.http.GuardedBackend.request", fails)
            patched.setattr("delivery.backends.ses.SESBackend.request", fails)
            deliver()
        assert esp.requests == []
        assert states()["retry"] == turns.REFUSALS
        assert Circuit.objects.get().open_until is not None
        time_passes()
        deliver()
        assert set(esp.ledger.values()) == {1}
    assert states() == {"sent": 60}


@each_kind
def test_mail_whose_call_cannot_be_made_keeps_no_other_from_leaving(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_esp(kind) as esp:
        esp.usual = taking(kind)
        messages = newsletter(esp, kind, 16)
        odd = messages[5].email
        batching = type(BATCHINGS[TRAITS[kind].backend])
        body = batching.body

        def fails(self: Any, parts: Any) -> bytes:
            if any(part.address == odd for part in parts):
                raise KeyError
            return body(self, parts)

        monkeypatch.setattr(batching, "body", fails)
        deliver()
        assert set(esp.ledger.values()) == {1}
    # Alone it is put together in another way.
    assert states() == {"sent": 16}
