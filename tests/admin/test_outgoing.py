"""Outgoing webhooks in the admin: secrets are shown once, and what people do with endpoints."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from common.clock import now
from tests.webhooks.outgoing.rows import make_delivery, make_endpoint
from webhooks.models import OutgoingDelivery, OutgoingEndpoint
from webhooks.outgoing.secrets import decrypt

LIST = "admin:webhooks_outgoingendpoint_changelist"
ADD = "admin:webhooks_outgoingendpoint_add"
FORM = {"name": "Shop", "url": "https://shop.example.com/hook", "types": ["email.bounced"]}


def add(client: Client, **fields: Any) -> Any:
    return client.post(reverse(ADD), {**FORM, **fields})


def do(client: Client, row: Any, name: str, model: str = "outgoingendpoint") -> Any:
    url = reverse(f"admin:webhooks_{model}_do", args=[row.pk, name])
    return client.post(url, {"confirmed": "yes"}, follow=True)


def canaries(secret: str) -> list[str]:
    """How a secret could show: itself, its key, the key's bytes in hexadecimal."""
    key = secret.removeprefix("whsec_")
    return [key, key.rstrip("="), base64.b64decode(key).hex()]


def test_secret_is_shown_once_when_it_is_made_and_never_again(operator: Client) -> None:
    page = add(operator)
    endpoint = OutgoingEndpoint.objects.get()
    secret = decrypt(endpoint.secret)
    assert secret in page.text
    assert "no-store" in page["Cache-Control"]
    assert (endpoint.types, endpoint.with_address, endpoint.is_active) == (
        ["email.bounced"],
        False,
        True,
    )
    change = reverse("admin:webhooks_outgoingendpoint_change", args=[endpoint.pk])
    history = reverse("admin:webhooks_outgoingendpoint_history", args=[endpoint.pk])
    for url in (change, history, reverse(LIST)):
        text = operator.get(url).text
        assert not any(canary in text for canary in [*canaries(secret), endpoint.secret])
    assert not any(
        c in str(vars(entry)) for entry in LogEntry.objects.all() for c in canaries(secret)
    )


def test_change_leaves_the_secret_and_the_columns_of_the_drain_alone(operator: Client) -> None:
    endpoint = make_endpoint(failures=3, failing_since=now())
    url = reverse("admin:webhooks_outgoingendpoint_change", args=[endpoint.pk])
    form = {**FORM, "with_address": "on", "secret": "whsec_AAAA", "failures": "0"}
    assert operator.post(url, form).status_code == 302
    changed = OutgoingEndpoint.objects.get()
    assert (changed.name, changed.with_address) == ("Shop", True)
    assert (changed.secret, changed.failures) == (endpoint.secret, 3)


@pytest.mark.parametrize(
    "url",
    ["http://shop.example.com/", "https://127.0.0.1/", "https://redis/", "javascript:alert(1)"],
)
def test_url_that_may_not_be_called_is_refused_in_the_form(operator: Client, url: str) -> None:
    page = add(operator, url=url)
    assert page.status_code == 200
    assert "errorlist" in page.text or "The " in page.text
    assert not OutgoingEndpoint.objects.exists()


def test_replaced_secret_is_shown_once(operator: Client) -> None:
    endpoint = make_endpoint()
    page = do(operator, endpoint, "rotate")
    rotated = OutgoingEndpoint.objects.get()
    assert decrypt(rotated.secret) in page.text
    assert decrypt(rotated.previous_secret) == decrypt(endpoint.secret)
    assert decrypt(rotated.previous_secret) not in page.text
    assert rotated.signs_twice
    do(operator, endpoint, "drop")
    rotated.refresh_from_db()
    assert (rotated.previous_secret, rotated.signs_twice) == ("", False)


def test_secret_is_not_replaced_on_get(operator: Client) -> None:
    endpoint = make_endpoint()
    url = reverse("admin:webhooks_outgoingendpoint_do", args=[endpoint.pk, "rotate"])
    assert operator.get(url).status_code == 200
    assert OutgoingEndpoint.objects.get().secret == endpoint.secret


def test_endpoint_is_switched_off_and_on(operator: Client) -> None:
    endpoint = make_endpoint()
    do(operator, endpoint, "disable")
    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.disabled_why) == (False, "Switched off by hand.")
    assert "was switched off" not in operator.get(reverse(LIST)).text
    OutgoingEndpoint.objects.update(
        failures=9, failing_since=now() - timedelta(days=9), disabled_why="It answered 410 Gone."
    )
    assert "was switched off" in operator.get(reverse(LIST)).text
    do(operator, endpoint, "enable")
    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.disabled_why, endpoint.disabled_at) == (True, "", None)
    assert (endpoint.failures, endpoint.failing_since) == (0, None)


def test_test_is_queued(operator: Client) -> None:
    do(operator, make_endpoint(), "test")
    delivery = OutgoingDelivery.objects.get()
    assert (delivery.type, delivery.state, delivery.contact_id) == ("webhook.test", "pending", None)


def test_dead_and_delivered_are_replayed_after_a_question(operator: Client) -> None:
    endpoint = make_endpoint()
    rows = [
        make_delivery(endpoint, state=state, attempts=4)
        for state in ("dead", "delivered", "withheld", "pending")
    ]
    url = reverse("admin:webhooks_outgoingdelivery_changelist")
    selected = {"action": "replay", "_selected_action": [row.pk for row in rows]}
    page = operator.post(url, selected)
    assert "webhook-id it had" in page.text
    assert OutgoingDelivery.objects.filter(attempts=4).count() == 4
    operator.post(url, {**selected, "confirmed": "yes"})
    after = list(OutgoingDelivery.objects.order_by("pk").values_list("state", "attempts"))
    assert after == [("pending", 0), ("pending", 0), ("withheld", 4), ("pending", 4)]


def test_answer_of_a_stranger_is_shown_not_run(operator: Client) -> None:
    row = make_delivery(make_endpoint(), state="dead", answer="<script>alert('x')</script>")
    page = operator.get(reverse("admin:webhooks_outgoingdelivery_change", args=[row.pk])).text
    assert "&lt;script&gt;alert" in page
    assert "<script>alert('x')" not in page


def test_deliveries_are_read_only(operator: Client) -> None:
    admin.autodiscover()
    model_admin = admin.site._registry[OutgoingDelivery]
    assert not model_admin.has_change_permission(None)  # type: ignore[arg-type]
    with_it = reverse("admin:webhooks_outgoingdelivery_changelist") + "add/"
    assert operator.get(with_it).status_code in (302, 403, 404)


def test_endpoint_goes_with_its_deliveries(operator: Client) -> None:
    endpoint = make_endpoint()
    make_delivery(endpoint)
    url = reverse("admin:webhooks_outgoingendpoint_delete", args=[endpoint.pk])
    assert "was told: 1<" in operator.get(url).text.replace("\n", "")
    operator.post(url, {"post": "yes"})
    assert not OutgoingDelivery.objects.exists()


def test_who_may_only_look_gets_no_buttons(viewer: Client) -> None:
    endpoint = make_endpoint()
    page = viewer.get(reverse("admin:webhooks_outgoingendpoint_change", args=[endpoint.pk]))
    assert "/do/" not in page.text
    assert do(viewer, endpoint, "rotate").status_code == 403
