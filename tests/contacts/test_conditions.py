"""The condition language."""

from typing import Any

import pytest

from contacts.conditions import InvalidCondition, compile_condition

FACTS = {
    "payload": {
        "order": {"total": 120.5, "paid": True, "items": [{"sku": "A"}, {"sku": "B"}]},
        "coupon": None,
        "country": "DE",
        "tags": ["new", "vip"],
    },
    "contact": {"name": "Ada", "attributes": {"plan": "pro", "logins": 1}},
}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, True),
        (None, True),
        ({"path": "payload.order.total", "op": "gte", "value": 100}, True),
        ({"path": "payload.order.total", "op": "lt", "value": 100}, False),
        ({"path": "payload.order.total", "op": "gt", "value": "100"}, False),
        ({"path": "payload.order.items.1.sku", "op": "eq", "value": "B"}, True),
        ({"path": "payload.order.items.7.sku", "op": "eq", "value": "B"}, False),
        ({"path": "payload.order.paid", "op": "eq", "value": True}, True),
        ({"path": "payload.order.paid", "op": "eq", "value": 1}, False),
        ({"path": "contact.attributes.logins", "op": "eq", "value": True}, False),
        ({"path": "payload.country", "op": "in", "value": ["DE", "AT"]}, True),
        ({"path": "payload.country", "op": "not_in", "value": ["DE", "AT"]}, False),
        ({"path": "payload.tags", "op": "contains", "value": "vip"}, True),
        ({"path": "contact.name", "op": "contains", "value": "AD"}, True),
        ({"path": "contact.name", "op": "starts_with", "value": "Ad"}, True),
        ({"path": "payload.coupon", "op": "missing"}, True),
        ({"path": "payload.coupon", "op": "exists"}, False),
        ({"path": "payload.nope", "op": "missing"}, True),
        ({"path": "payload.nope", "op": "ne", "value": 1}, False),
        ({"path": "payload.nope", "op": "not_in", "value": [1]}, False),
        ({"not": {"path": "payload.nope", "op": "exists"}}, True),
        ({"all": []}, True),
        ({"any": []}, False),
        (
            {
                "all": [
                    {"path": "contact.attributes.plan", "op": "eq", "value": "pro"},
                    {
                        "any": [
                            {"path": "payload.country", "op": "eq", "value": "FR"},
                            {"path": "payload.country", "op": "eq", "value": "DE"},
                        ]
                    },
                ]
            },
            True,
        ),
    ],
)
def test_condition(tree: Any, expected: bool) -> None:
    assert compile_condition(tree)(FACTS) is expected


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ([], ""),
        ({"all": {}}, "all"),
        ({"all": [{"any": [{"path": "a"}]}]}, "all.0.any.0"),
        ({"path": "a", "op": "regex", "value": "x"}, "op"),
        ({"path": "a", "op": ["eq"], "value": "x"}, "op"),
        ({"path": "", "op": "eq", "value": "x"}, "path"),
        ({"path": 7, "op": "eq", "value": "x"}, "path"),
        ({"path": "a", "op": "eq"}, "value"),
        ({"path": "a", "op": "in", "value": "x"}, "value"),
        ({"path": "a", "op": "eq", "value": 1, "extra": 1}, ""),
        ({"all": [], "any": []}, ""),
    ],
)
def test_malformed_tree_is_refused_with_its_path(tree: Any, path: str) -> None:
    with pytest.raises(InvalidCondition) as caught:
        compile_condition(tree)
    assert caught.value.path == path


def test_endless_tree_is_refused() -> None:
    with pytest.raises(InvalidCondition):
        compile_condition({"all": [{"path": "a", "op": "exists"}] * 500})
