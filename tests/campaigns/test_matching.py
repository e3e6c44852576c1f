"""Which campaigns an event starts: the index finds those that asking all of them finds."""

import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import engine, plans
from campaigns.batch import MAX_NOTED
from campaigns.matching import Listeners
from campaigns.plan import Plan, build_plan
from campaigns.plans import Listening
from campaigns.services import publish_campaign
from contacts.conditions import compile_condition, demanded_values
from events.models import Event
from events.services import submit
from tests.factories import CampaignFactory, event_in

SCALARS = st.one_of(
    st.sampled_from(["a", "b", "1", "", 0, 1, 1.0, True, False, None]), st.floats(), st.integers()
)
ANYTHING = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.just({"x": 1}))
PATHS = st.sampled_from(["payload.sku", "payload.plan", "contact.name", "payload.lines.0"])
TESTS = st.one_of(
    st.builds(
        lambda path, op, value: {"path": path, "op": op, "value": value},
        PATHS,
        st.sampled_from(["eq", "ne", "gt", "contains"]),
        ANYTHING,
    ),
    st.builds(
        lambda path, values: {"path": path, "op": "in", "value": values},
        PATHS,
        st.lists(ANYTHING, max_size=3),
    ),
    st.builds(lambda path: {"path": path, "op": "missing"}, PATHS),
)
CONDITIONS = st.recursive(
    st.one_of(st.just({}), TESTS),
    lambda inner: st.one_of(
        st.builds(
            lambda kind, children: {kind: children},
            st.sampled_from(["all", "any"]),
            st.lists(inner.filter(bool), max_size=3),
        ),
        st.builds(lambda child: {"not": child}, inner.filter(bool)),
    ),
    max_leaves=5,
)
FACTS = st.fixed_dictionaries(
    {
        "payload": st.dictionaries(st.sampled_from(["sku", "plan", "lines"]), ANYTHING),
        "contact": st.dictionaries(st.just("name"), ANYTHING),
    }
)


def plan(number: int, *conditions: Any) -> Plan:
    rules = [{"event_type": "Sold", "condition": condition} for condition in conditions]
    snapshot = {"stream": "marketing", "topic_id": 1, "sender_id": 1, "rules": rules, "steps": []}
    key = f"c{number}"
    return build_plan(campaign_id=number, campaign_key=key, revision_id=number, snapshot=snapshot)


@given(st.lists(st.lists(CONDITIONS, min_size=1, max_size=2), max_size=5), FACTS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_index_finds_what_asking_everybody_finds(conditions: Any, facts: Any) -> None:
    listening = [
        Listening(plan(n, *of_one), is_paused=False) for n, of_one in enumerate(conditions)
    ]
    asked = [
        (entry.plan.campaign_id, position)
        for entry in listening
        for position, rule in list(enumerate(entry.plan.rules))
        if rule.matches(facts)
    ]
    first = dict(reversed(asked))
    found = Listeners("Sold", listening).matches(facts)
    assert [
        (entry.plan.campaign_id, entry.plan.rules.index(rule)) for entry, rule in found
    ] == sorted(first.items())


@given(CONDITIONS, FACTS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_rule_is_only_true_where_its_demand_is_met(condition: Any, facts: Any) -> None:
    demand = demanded_values(condition)
    listening = [Listening(plan(1, condition), is_paused=False)]
    found = Listeners("Sold", listening).matches(facts)
    assert bool(found) == compile_condition(condition)(facts)
    if demand is not None:
        assert all(key is not None for key in demand[1])


@pytest.mark.parametrize(
    ("condition", "demand"),
    [
        ({"path": "a", "op": "eq", "value": "x"}, ("a", {(False, "x")})),
        ({"path": "a", "op": "eq", "value": True}, ("a", {(True, True)})),
        ({"path": "a", "op": "in", "value": [1, "x"]}, ("a", {(False, 1), (False, "x")})),
        ({"path": "a", "op": "eq", "value": None}, None),
        ({"path": "a", "op": "in", "value": ["x", [1]]}, None),
        ({"path": "a", "op": "gt", "value": 1}, None),
        ({"any": [{"path": "a", "op": "eq", "value": 1}]}, None),
        ({"not": {"path": "a", "op": "eq", "value": 1}}, None),
        (
            {
                "all": [
                    {"path": "a", "op": "exists"},
                    {"all": [{"path": "b", "op": "eq", "value": 1}]},
                ]
            },
            ("b", {(False, 1)}),
        ),
        ({}, None),
        (None, None),
    ],
)
def test_demand_of_a_condition(condition: Any, demand: Any) -> None:
    found = demanded_values(condition)
    assert found == (None if demand is None else (demand[0], frozenset(demand[1])))


@pytest.mark.django_db
def test_event_names_the_first_of_many_campaigns_it_did_not_start_and_counts_the_rest() -> None:
    others = [
        CampaignFactory(rule={"condition": {"path": "payload.sku", "op": "eq", "value": f"s{n}"}})
        for n in range(MAX_NOTED + 3)
    ]
    started = CampaignFactory()
    submit([event_in("e1")])
    engine.process_batch(limit=10)
    outcome = Event.objects.get().outcome
    assert outcome[0] == {"campaign": started.key, "result": "entered"}
    named = list(map(operator.attrgetter("key"), others[:MAX_NOTED]))
    assert [entry["campaign"] for entry in outcome[1:-1]] == named
    assert outcome[-1] == {"more": 3, "result": "not_matched"}


@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 50])
def test_plans_of_many_campaigns_are_loaded_by_two_queries_and_found_again_by_one(
    count: int, django_assert_num_queries: Any
) -> None:
    keys = [CampaignFactory().key for _ in range(count)]
    plans._cache.clear()
    for queries in (2, 1):
        with django_assert_num_queries(queries):
            found = plans.listening_to(["UserSignedUp"])
        assert [entry.plan.campaign_key for entry in found] == keys


@pytest.mark.django_db
def test_published_again_a_campaign_listens_by_its_new_rules() -> None:
    campaign = CampaignFactory(rule={"condition": {"path": "payload.x", "op": "eq", "value": 1}})
    submit([event_in("e1")])
    engine.process_batch(limit=10)
    campaign.rules.update(condition={})
    publish_campaign(campaign, by=None)
    submit([event_in("e2")])
    engine.process_batch(limit=10)
    assert [event.reason for event in Event.objects.order_by("pk")] == ["not_matched", ""]
