"""Providers that are down (E16, E17, E21, E22): one call finds out, others stand in, one message
tries whether they are back."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.db.models.functions import Now

from delivery import circuits
from delivery.models import Circuit, Message
from delivery.services import stop_sending
from tests.delivery.fakeesp import Answer, FakeESP, fake_esp
from tests.delivery.test_esp_faults import (
    _set_up,  # noqa: F401 - the same
    deliver,
    messages_through,
    states,
    time_passes,
)
from tests.factories import ProviderFactory

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("answer", [Answer(401, "bad key"), Answer(403, "account paused")])
def test_e16_e17_account_that_is_closed_costs_one_call_until_it_is_open_again(
    esp: FakeESP, answer: Answer
) -> None:
    messages_through(esp.url, 20)
    esp.script = [answer]
    for _ in range(3):
        deliver()
    assert len(esp.requests) == 1
    assert set(Message.objects.values_list("failures", flat=True)) == {0}
    circuit = Circuit.objects.get()
    assert circuit.open_until is not None
    assert "HTTP 40" in circuit.reason
    time_passes()
    for _ in range(3):
        deliver()
        Message.objects.filter(state="queued").update(due_at=Now())
    assert states() == ["sent"] * 20
    assert Circuit.objects.get().open_until is None
    assert set(esp.ledger.values()) == {1}


def test_e21_provider_that_is_down_is_stood_in_for_by_its_pool(esp: FakeESP) -> None:
    doubtful, *rest = messages_through(esp.url, 8, pool="main", concurrency=1)
    with fake_esp() as other:
        ProviderFactory(
            key="other", backend="postmark", api_url=other.url, secret_env="TEST_KEY", pool="main"
        )
        esp.script = [Answer(500, "oops"), Answer(401, "closed")]
        deliver()
        time_passes_for_messages()
        deliver()
        assert len(esp.requests) == 2
        # What the first one may have stays where it is.
        assert states() == ["unknown"] + ["sent"] * 7
        assert doubtful.pk not in other.ledger
        assert set(other.ledger) == {message.pk for message in rest}
        assert Message.objects.filter(provider__key="other").count() == 7


def time_passes_for_messages() -> None:
    Message.objects.filter(state__in=("retry", "queued")).update(due_at=Now())


def test_e21_stand_in_has_to_fit(esp: FakeESP) -> None:
    messages_through("http://127.0.0.1:1", pool="main", regions=["eu-*"])
    fields = {"backend": "postmark", "api_url": esp.url, "secret_env": "TEST_KEY", "pool": "main"}
    ProviderFactory(key="a", **fields, is_active=False)
    ProviderFactory(key="b", **fields, carries="marketing")
    ProviderFactory(key="c", **{**fields, "pool": "another"})
    ProviderFactory(key="d", **fields)
    stop_sending("provider", "d")
    Circuit.objects.create(
        provider=Message.objects.get().sender.provider, open_until=Now() + timedelta(hours=1)
    )
    deliver()
    assert esp.requests == []


def test_e22_one_message_at_a_time_tries_whether_a_provider_is_back(esp: FakeESP) -> None:
    messages_through(esp.url, 10)
    esp.script = [Answer(401, "closed"), Answer(401, "closed"), Answer(401, "closed")]
    pauses = []
    for calls in (1, 2, 3):
        for _ in range(3):
            deliver()
            time_passes_for_messages()
        assert len(esp.requests) == calls
        circuit = Circuit.objects.annotate(pause=F("open_until") - Now()).get()
        pauses.append(circuit.pause.total_seconds())
        time_passes()
    assert pauses == [
        pytest.approx(60, abs=20),
        pytest.approx(60, abs=20),
        pytest.approx(120, abs=20),
    ]


def test_e22_two_workers_do_not_both_try(esp: FakeESP) -> None:
    (message,) = messages_through(esp.url)
    provider = message.sender.provider
    Circuit.objects.create(provider=provider, open_until=Now() - timedelta(seconds=1), trips=1)
    assert circuits.claim_probes([provider.pk]) == {provider.pk}
    assert circuits.claim_probes([provider.pk]) == set()


CLOSED = Answer(422, {"ErrorCode": 405, "Message": "out of credits"})


@pytest.mark.parametrize("answer", [Answer(429, "slower", {"Retry-After": "3600"}), CLOSED])
@pytest.mark.parametrize("pool", ["main", ""])
def test_long_pause_of_one_provider_is_no_pause_where_another_stands_in(
    esp: FakeESP, answer: Answer, pool: str
) -> None:
    messages_through(esp.url, 6, pool=pool, concurrency=1)
    with fake_esp() as other:
        fields = {"backend": "postmark", "api_url": other.url, "secret_env": "TEST_KEY"}
        ProviderFactory(key="other", **fields, pool=pool)
        esp.usual = answer
        deliver()
        soon = Message.objects.filter(due_at__lt=Now() + timedelta(seconds=30))
        assert soon.count() == (6 if pool else 0)
        soon.update(due_at=Now())
        deliver()
        assert len(esp.requests) == 1
        assert len(other.ledger) == (6 if pool else 0)


def test_stand_in_that_is_stopped_hides_no_other(esp: FakeESP) -> None:
    messages_through("http://127.0.0.1:1", 2, pool="main")
    fields = {"backend": "postmark", "api_url": esp.url, "secret_env": "TEST_KEY", "pool": "main"}
    ProviderFactory(key="b", **fields, priority=1)
    ProviderFactory(key="c", **fields, priority=2)
    stop_sending("provider", "b")
    down = Message.objects.select_related("sender__provider").first()
    assert down is not None
    assert down.sender is not None
    Circuit.objects.create(provider=down.sender.provider, open_until=Now() + timedelta(hours=1))
    deliver()
    assert set(Message.objects.values_list("state", "provider__key")) == {("sent", "c")}
