"""Every page of the admin: it answers, its cost does not grow with its rows, and what strangers
wrote is shown, not run."""

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.admin.rows import EVIL, LISTS
from tests.factories import MessageFactory

admin.autodiscover()
MODELS = [f"{m._meta.app_label}_{m._meta.model_name}" for m in admin.site._registry]
ADDABLE = [
    "campaigns_campaign",
    "content_template",
    "contacts_topic",
    "contacts_contact",
    "suppression_suppression",
    "events_eventtype",
    "events_apikey",
    "delivery_provider",
    "delivery_sender",
    "delivery_switch",
    "webhooks_outgoingendpoint",
    "django_celery_beat_periodictask",
    "django_celery_beat_intervalschedule",
    "auth_user",
    "auth_group",
]


def _queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


@pytest.mark.parametrize("model", MODELS)
def test_list_answers_on_an_empty_database(operator: Client, model: str) -> None:
    assert operator.get(reverse(f"admin:{model}_changelist")).status_code == 200


@pytest.mark.parametrize("model", ADDABLE)
def test_add_page_answers(operator: Client, model: str) -> None:
    assert operator.get(reverse(f"admin:{model}_add")).status_code == 200


@pytest.mark.parametrize("model", LISTS)
def test_list_costs_the_same_for_one_and_three_rows(operator: Client, model: str) -> None:
    url = reverse(f"admin:{model}_changelist")
    LISTS[model]()
    operator.get(url)
    one = _queries(operator, url)
    LISTS[model]()
    LISTS[model]()
    assert _queries(operator, url) == one


@pytest.mark.parametrize("model", LISTS)
def test_pages_escape_what_strangers_wrote(operator: Client, model: str) -> None:
    row = LISTS[model]()
    for url in (
        reverse(f"admin:{model}_changelist"),
        reverse(f"admin:{model}_change", args=[row.pk]),
    ):
        response = operator.get(url, follow=True)
        assert response.status_code == 200
        assert EVIL not in response.text


def test_overview_escapes_what_strangers_wrote(operator: Client) -> None:
    for make in LISTS.values():
        make()
    page = operator.get(reverse("admin:index")).text
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_overview_costs_the_same_for_one_and_three_messages(operator: Client) -> None:
    url = reverse("admin:index")
    MessageFactory()
    operator.get(url)
    one = _queries(operator, url)
    MessageFactory.create_batch(2)
    assert _queries(operator, url) == one


def test_overview_answers_on_an_empty_database(operator: Client) -> None:
    assert "Nothing was sent" in operator.get(reverse("admin:index")).text


@pytest.mark.parametrize("model", LISTS)
def test_page_may_be_viewed_by_those_who_only_view(viewer: Client, model: str) -> None:
    row = LISTS[model]()
    url = reverse(f"admin:{model}_change", args=[row.pk])
    response = viewer.get(url, follow=True)
    assert response.status_code == 200
    assert "/do/" not in response.text


@pytest.mark.parametrize("model", MODELS)
def test_list_refuses_what_no_text_may_hold(operator: Client, model: str) -> None:
    if model in LISTS:
        LISTS[model]()
    url = reverse(f"admin:{model}_changelist")
    names = ("q", "o", "p", "state", "provider", "origin_campaign", "key", "pk", "id\0")
    for name in names:
        response = operator.get(url, {name: "a\0"}, follow=True)
        assert response.status_code == 200, name
