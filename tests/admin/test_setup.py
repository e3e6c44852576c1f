"""Providers, senders, switches and suppressions: what operators set up and stop."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from common.addresses import address_hash, parse_address
from delivery.models import Provider, Sender, Switch
from delivery.services import stop_sending
from delivery.states import MessageState, Reason
from suppression.models import Suppression
from tests.factories import MessageFactory, ProviderFactory, SenderFactory, TopicFactory


def _provider_form(**fields: object) -> dict[str, object]:
    form = {"key": "main", "backend": "postmark", "concurrency": "4", "priority": "100"}
    return {**form, "is_active": "on", **fields}


@pytest.mark.parametrize(
    ("variable", "accepted"),
    [
        ("POSTMARK_API_KEY", True),
        ("", True),
        ("sk-live-123.abc", False),
        ("SECRET_KEY", False),
        ("database_url", False),
        ("EMAIL_URL", False),
        ("EMAILAUTO_DEMO_PASSWORD", False),
        ("A_KEY, KAFKA_OPTIONS", False),
        ("A_KEY, ANOTHER_KEY", True),
    ],
)
def test_provider_takes_a_variables_name_and_no_secret(
    operator: Client, variable: str, accepted: bool
) -> None:
    operator.post(reverse("admin:delivery_provider_add"), _provider_form(secret_env=variable))
    assert Provider.objects.filter(key="main").exists() is accepted


@pytest.mark.parametrize(
    ("backend", "size", "accepted"),
    [
        ("postmark", "", True),
        ("postmark", "0", True),
        ("postmark", "500", True),
        ("postmark", "501", False),
        ("mailjet", "51", False),
        ("smtp", "1", True),
        ("smtp", "2", False),
        ("ses", "51", False),
        ("sparkpost", "2", False),
    ],
)
def test_provider_gets_no_more_mails_per_call_than_it_takes(
    operator: Client, backend: str, size: str, accepted: bool
) -> None:
    form = _provider_form(backend=backend, batch_size=size)
    text = operator.post(reverse("admin:delivery_provider_add"), form, follow=True).text
    assert Provider.objects.filter(key="main").exists() is accepted
    assert ("at most in one call" in text) is not accepted


def test_provider_page_says_whether_its_secret_is_set_and_never_shows_it(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ProviderFactory(backend="postmark", secret_env="POSTMARK_API_KEY")
    page = reverse("admin:delivery_provider_change", args=[provider.pk])
    monkeypatch.delenv("POSTMARK_API_KEY", raising=False)
    assert "is not set in this process" in operator.get(page).text
    monkeypatch.setenv("POSTMARK_API_KEY", "canary-4711")
    text = operator.get(page).text
    assert "is set" in text
    assert "canary-4711" not in text


def test_stopped_provider_holds_its_mail_until_it_is_switched_on(operator: Client) -> None:
    provider = ProviderFactory()
    page = "admin:delivery_provider_do"
    operator.post(reverse(page, args=[provider.pk, "stop"]), {"confirmed": "yes"})
    assert Switch.objects.get().key == provider.key
    held = MessageFactory(
        state=MessageState.HELD, reason=Reason.KILL_SWITCH, sender__provider=provider
    )
    operator.post(reverse(page, args=[provider.pk, "resume"]))
    held.refresh_from_db()
    assert (Switch.objects.count(), held.state) == (0, MessageState.QUEUED)


def test_switch_for_everything_is_added_and_lifted(operator: Client) -> None:
    operator.post(reverse("admin:delivery_switch_add"), {"what": "", "note": "fire"})
    switch = Switch.objects.get()
    assert (switch.target, switch.key, switch.note) == ("everything", "", "fire")
    assert "Stopped: Everything" in operator.get(reverse("admin:index")).text
    url = reverse("admin:delivery_switch_do", args=[switch.pk, "lift"])
    operator.post(url, {"confirmed": "yes"})
    assert not Switch.objects.exists()


def test_switch_of_a_paused_campaign_is_not_lifted_behind_its_back(operator: Client) -> None:
    stop_sending(Switch.Target.CAMPAIGN, "welcome", reason=Reason.CAMPAIGN_PAUSED)
    switch = Switch.objects.get()
    url = reverse("admin:delivery_switch_do", args=[switch.pk, "lift"])
    operator.post(url, {"confirmed": "yes"})
    assert Switch.objects.exists()


def test_first_sender_is_the_default_and_another_can_become_it(operator: Client) -> None:
    provider = ProviderFactory()
    form = {"name": "Shop", "email": "Shop@Example.com", "provider": provider.pk}
    operator.post(reverse("admin:delivery_sender_add"), form)
    first = Sender.objects.get()
    assert (first.is_default, first.email) == (True, "Shop@example.com")
    second = SenderFactory(provider=provider)
    url = reverse("admin:delivery_sender_do", args=[second.pk, "make-default"])
    operator.post(url, {"confirmed": "yes"})
    assert list(Sender.objects.filter(is_default=True)) == [second]


def test_suppression_is_added_through_the_service(operator: Client) -> None:
    TopicFactory(key="news")
    form = {"address": " Ada@Example.COM ", "reach": "topic:news", "why": "by phone"}
    operator.post(reverse("admin:suppression_suppression_add"), form)
    row = Suppression.objects.get()
    assert bytes(row.address_hash) == address_hash("ada@example.com")
    assert (row.scope, row.reason, row.evidence) == ("topic:news", "manual", "by phone")
    assert row.source == "admin: operator"


@pytest.mark.parametrize("reach", ["topic:unknown", "nonsense", ""])
def test_suppression_knows_its_scopes(operator: Client, reach: str) -> None:
    form = {"address": "ada@example.com", "reach": reach, "why": "by phone"}
    operator.post(reverse("admin:suppression_suppression_add"), form)
    assert not Suppression.objects.exists()


def test_search_finds_an_erased_address_by_its_hash(operator: Client) -> None:
    digest = address_hash(parse_address("ada@example.com").normalized)
    Suppression.objects.create(address_hash=digest, email="", source="erasure")
    url = reverse("admin:suppression_suppression_changelist")
    assert "erased, kept as a hash" in operator.get(url, {"q": "Ada@example.com"}).text
    assert "Nothing matches" in operator.get(url, {"q": "eve@example.com"}).text


def test_suppression_is_lifted_by_superusers_only(operator: Client, client: Client) -> None:
    row = Suppression.objects.create(address_hash=b"x" * 32, source="test")
    url = reverse("admin:suppression_suppression_delete", args=[row.pk])
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(content_type__app_label="suppression"))
    client.force_login(staff)
    assert client.post(url, {"post": "yes"}).status_code == 403
    assert operator.post(url, {"post": "yes"}).status_code == 302
    assert not Suppression.objects.exists()


def test_switch_with_a_number_slows_down_and_says_so(operator: Client) -> None:
    url = "/admin/delivery/switch/add/"
    assert operator.post(url, {"what": "", "per_hour": "0", "note": ""}).status_code == 200
    assert not Switch.objects.exists()
    operator.post(url, {"what": "", "per_hour": "100", "note": "carefully"})
    switch = Switch.objects.get()
    assert (switch.target, switch.per_hour, switch.reason) == ("everything", 100, "slowed")
    page = operator.get("/admin/delivery/switch/").text
    assert "lets 100 an hour leave" in page
    assert "Slowed down to 100 an hour: Everything" in operator.get("/admin/").text
