"""The admin of polls: read, hurried, never edited."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from tests.admin.rows import make_poll
from webhooks.models import Poll


def _do(client: Client, name: str, poll: Poll, **data: str) -> Any:
    url = reverse("admin:webhooks_poll_changelist") + f"{poll.pk}/do/{name}/"
    return client.post(url, data, follow=True)


@pytest.fixture
def poll(db: None) -> Poll:
    row = make_poll()
    Poll.objects.update(due_at=Now() + timedelta(hours=5), since=Now(), page="40")
    row.refresh_from_db()
    return row


def test_poll_now_makes_it_due(operator: Client, poll: Poll) -> None:
    assert "1 list is read within a minute" in _do(operator, "poll-now", poll).text
    assert Poll.objects.due().get() == poll
    poll.refresh_from_db()
    assert (poll.page, poll.since is None) == ("40", False)


def test_read_from_the_beginning_asks_and_forgets_the_cursor(operator: Client, poll: Poll) -> None:
    _do(operator, "read-again", poll)
    assert not Poll.objects.due().exists()
    _do(operator, "read-again", poll, confirmed="yes")
    poll.refresh_from_db()
    assert (poll.page, poll.since) == ("", None)


def test_nobody_is_promised_what_no_worker_does(
    operator: Client, poll: Poll, settings: Any
) -> None:
    settings.RECONCILE_HOURS = 0
    assert "RECONCILE_HOURS is 0" in _do(operator, "poll-now", poll).text
    assert not Poll.objects.due().exists()


def test_its_page_shows_no_place_in_the_list(operator: Client, poll: Poll) -> None:
    Poll.objects.update(page="mail.example.com?page=next&address=ada@example.com")
    url = reverse("admin:webhooks_poll_change", args=[poll.pk])
    assert "ada@example.com" not in operator.get(url).text
