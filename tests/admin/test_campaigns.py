"""A marketer's work on a campaign: draft, publish, change, pause, stop."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from campaigns.models import Campaign, Enrollment, Step
from campaigns.services import differs_from_published
from campaigns.states import CampaignState, StepKind
from common.clock import now
from contacts.forms import in_words
from delivery.models import Switch
from delivery.states import MessageState
from tests.factories import (
    CampaignFactory,
    ContactFactory,
    EventTypeFactory,
    MessageFactory,
    TemplateFactory,
    TopicFactory,
)

ADD = "/admin/campaigns/campaign/add/"


def _page(campaign: Campaign) -> str:
    return reverse("admin:campaigns_campaign_change", args=[campaign.pk])


def _rows(prefix: str, rows: list[dict[str, Any]], initial: int = 0) -> dict[str, Any]:
    form = {f"{prefix}-TOTAL_FORMS": len(rows), f"{prefix}-INITIAL_FORMS": initial}
    for number, row in enumerate(rows):
        form |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
    return form


def _form(
    *,
    rules: list[dict[str, Any]] | None = None,
    steps: list[dict[str, Any]] | None = None,
    initial: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    rules = [{"event_type": EventTypeFactory().pk}] if rules is None else rules
    steps = (
        [{"key": "mail", "kind": "send_email", "template": TemplateFactory().pk}]
        if steps is None
        else steps
    )
    steps = [{"position": n, "wait_unit": "hours", **s} for n, s in enumerate(steps, start=1)]
    return {
        "name": "Welcome",
        "key": "welcome",
        "stream": "marketing",
        "topic": TopicFactory().pk,
        **_rows("rules", rules, initial),
        **_rows("steps", steps, initial),
        **_rows("revisions", []),
        **fields,
    }


def _edit(campaign: Campaign, **fields: Any) -> dict[str, Any]:
    """The form of a stored campaign, unchanged but for `fields`."""
    rule, step = campaign.rules.get(), campaign.steps.get()
    return _form(
        rules=[{"id": rule.pk, "event_type": rule.event_type_id}],
        steps=[{"id": step.pk, "key": step.key, "kind": step.kind, "template": step.template_id}],
        initial=1,
        **{"name": campaign.name, "topic": campaign.topic_id, **fields},
    )


def test_new_campaign_is_saved_and_published_with_one_button(operator: Client) -> None:
    operator.post(ADD, _form(_publish="1"))
    campaign = Campaign.objects.get()
    assert (campaign.state, campaign.published is not None) == (CampaignState.LIVE, True)


def test_incomplete_campaign_is_saved_and_says_what_is_missing(operator: Client) -> None:
    response = operator.post(ADD, _form(steps=[], topic="", _publish="1"), follow=True)
    campaign = Campaign.objects.get()
    assert campaign.state == CampaignState.DRAFT
    assert "Saved as a draft, but not published yet." in response.text
    assert "marketing mail needs a topic people can unsubscribe from" in response.text
    assert "nothing happens in the campaign: add a step" in response.text


def test_saved_change_counts_only_after_publishing(operator: Client) -> None:
    campaign = CampaignFactory()
    first = campaign.published
    other = TopicFactory(key="other").pk
    page = operator.post(_page(campaign), _edit(campaign, topic=other, _continue="1"), follow=True)
    campaign.refresh_from_db()
    assert campaign.published == first
    assert differs_from_published(campaign)
    assert "This draft differs from revision 1" in page.text
    assert "unpublished changes" in operator.get("/admin/campaigns/campaign/").text
    operator.post(_page(campaign), _edit(campaign, topic=other, _publish="1"))
    campaign.refresh_from_db()
    assert campaign.published is not None
    assert campaign.published.number == 2
    assert not differs_from_published(campaign)


def test_broken_condition_is_refused_at_its_field_with_its_place(operator: Client) -> None:
    condition = json.dumps({"all": [{"path": "payload.total", "op": "gte"}]})
    rules = [{"event_type": EventTypeFactory().pk, "condition": condition}]
    page = operator.post(ADD, _form(rules=rules)).text
    assert "all.0.value: is required" in page
    assert "payload.total" in page
    assert not Campaign.objects.exists()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", {}),
        ("{}", {}),
        ('{"any": [{"path": "a", "op": "eq", "value": 1}]}', None),
        ('{"not": {"path": "a", "op": "exists"}}', None),
    ],
)
def test_condition_is_stored_as_it_was_written(operator: Client, text: str, stored: Any) -> None:
    operator.post(ADD, _form(rules=[{"event_type": EventTypeFactory().pk, "condition": text}]))
    expected = json.loads(text) if stored is None else stored
    assert Campaign.objects.get().rules.get().condition == expected


def test_step_forgets_what_its_kind_does_not_use(operator: Client) -> None:
    step = {
        "key": "wait",
        "kind": "delay",
        "template": TemplateFactory().pk,
        "event_type": EventTypeFactory().pk,
        "match_path": "payload.cart_id",
        "wait_amount": 3,
        "on_event": "exit",
    }
    operator.post(ADD, _form(steps=[step]))
    stored = Step.objects.get()
    assert (stored.wait_amount, stored.wait_unit) == (3, "hours")
    assert (stored.template, stored.event_type) == (None, None)
    assert (stored.match_path, stored.on_event) == ("", "")


def test_step_may_not_be_called_exit(operator: Client) -> None:
    page = operator.post(ADD, _form(steps=[{"key": "exit", "kind": "exit"}])).text
    assert "is what a target says to leave the campaign" in page


def test_campaign_is_paused_resumed_and_stopped_with_buttons(operator: Client) -> None:
    campaign = CampaignFactory(key="welcome")

    def press(name: str) -> str:
        url = reverse("admin:campaigns_campaign_do", args=[campaign.pk, name])
        operator.post(url, {"confirmed": "yes"})
        campaign.refresh_from_db()
        return campaign.state

    assert press("pause") == CampaignState.PAUSED
    assert Switch.objects.get().key == "welcome"
    assert press("resume") == CampaignState.LIVE
    assert press("resume") == CampaignState.LIVE
    assert press("stop") == CampaignState.STOPPED
    assert press("resume") == CampaignState.STOPPED


def test_stop_asks_first(operator: Client) -> None:
    campaign = CampaignFactory()
    url = reverse("admin:campaigns_campaign_do", args=[campaign.pk, "stop"])
    assert "it can never be started again" in operator.post(url).text
    campaign.refresh_from_db()
    assert campaign.state == CampaignState.LIVE


def test_state_is_not_changed_by_following_a_link(operator: Client) -> None:
    campaign = CampaignFactory()
    for name in ("pause", "stop"):
        operator.get(reverse("admin:campaigns_campaign_do", args=[campaign.pk, name]))
    campaign.refresh_from_db()
    assert campaign.state == CampaignState.LIVE


def test_page_shows_the_way_and_who_waits_where(operator: Client) -> None:
    steps = [
        {"key": "pause", "kind": StepKind.DELAY, "wait_amount": 1, "wait_unit": "days"},
        {"key": "mail", "kind": StepKind.SEND_EMAIL},
    ]
    rule = {"condition": {"path": "payload.order.total", "op": "gte", "value": 100}}
    campaign = CampaignFactory(steps=steps, rule=rule)
    for contact in ContactFactory.create_batch(2):
        Enrollment.objects.create(
            campaign=campaign,
            contact=contact,
            entry_key="k",
            event_id="e",
            event_at=now(),
            revision=campaign.published,
            step_key="pause",
            wake_at=now(),
        )
    page = operator.get(_page(campaign)).text
    assert "if payload.order.total is at least 100" in page
    assert "Wait 1 day" in page
    assert "2 waiting" in page


def test_list_counts_the_mail_of_the_last_day(operator: Client) -> None:
    campaign = CampaignFactory(key="welcome")
    for state in (MessageState.SENT, MessageState.SENT, MessageState.SKIPPED, MessageState.DEAD):
        MessageFactory(state=state, origin_campaign="welcome")
    MessageFactory(state=MessageState.SENT, origin_campaign="other")
    page = operator.get(_page(campaign)).text
    assert "<strong>2</strong><span>sent in 24 h" in page
    assert "<strong>2</strong><span>not sent in 24 h" in page


def test_published_campaign_keeps_its_key_and_cannot_be_deleted(operator: Client) -> None:
    campaign = CampaignFactory(key="welcome")
    operator.post(_page(campaign), _edit(campaign, key="renamed", _continue="1"))
    campaign.refresh_from_db()
    assert campaign.key == "welcome"
    delete = reverse("admin:campaigns_campaign_delete", args=[campaign.pk])
    assert operator.post(delete, {"post": "yes"}).status_code == 403


def test_campaign_is_found_by_its_key(operator: Client) -> None:
    campaign = CampaignFactory(key="welcome")
    url = reverse("admin:campaigns_campaign_by_key", args=["welcome"])
    assert operator.get(url)["Location"] == _page(campaign)
    missing = reverse("admin:campaigns_campaign_by_key", args=["missing"])
    assert operator.get(missing).status_code == 404


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, ""),
        ({"path": "a", "op": "eq", "value": "x"}, 'a is "x"'),
        ({"path": "a", "op": "missing"}, "a is missing"),
        (
            {
                "all": [
                    {"path": "a", "op": "gt", "value": 1},
                    {
                        "any": [
                            {"path": "b", "op": "exists"},
                            {"path": "c", "op": "in", "value": [1, "2"]},
                        ]
                    },
                ]
            },
            'a is greater than 1 and (b is present or c is one of [1, "2"])',
        ),
        ({"not": {"path": "a", "op": "eq", "value": True}}, "not (a is true)"),
    ],
)
def test_condition_in_words(tree: Any, words: str) -> None:
    assert in_words(tree) == words
