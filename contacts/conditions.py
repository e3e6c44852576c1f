"""The condition language of rules: a JSON tree over the event and the contact. Pure.

    {"all": [ {"path": "payload.order.total", "op": "gte", "value": 100},
              {"not": {"path": "contact.attributes.plan", "op": "eq", "value": "free"}} ]}

An empty tree is always true. A path that leads nowhere is "missing": every comparison with it is
false, `ne` and `not_in` included, so that an absent field never lets a mail out by accident; only
`missing` and `not` speak of absence.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

MAX_NODES = 200

Facts = Mapping[str, Any]
Predicate = Callable[[Facts], bool]

_ABSENT = object()


class InvalidCondition(ValueError):
    """The tree is malformed; `path` leads to the node (`all.1.op`)."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


def lookup(facts: Any, path: str) -> Any:
    """The value at a dotted path through objects and list indices, or None."""
    value = _resolve(facts, path.split("."))
    return None if value is _ABSENT else value


def compile_condition(tree: Any) -> Predicate:
    """A function from facts to a truth value; raises `InvalidCondition`."""
    if tree in ({}, None):
        return lambda _facts: True
    return _compile(tree, "", [0])


def demanded_values(tree: Any) -> tuple[str, frozenset[Any]] | None:
    """A path and the `value_key`s of which it has to hold one, if the (valid) condition cannot be
    true otherwise; None when it demands nothing of the kind."""
    if not isinstance(tree, dict):
        return None
    if "all" in tree:
        return next(filter(None, map(demanded_values, tree["all"])), None)
    if tree.get("op") not in ("eq", "in"):
        return None
    keys = [
        value_key(value) for value in (tree["value"] if tree["op"] == "in" else [tree["value"]])
    ]
    return None if None in keys else (tree["path"], frozenset(keys))


def value_key(value: Any) -> tuple[bool, Any] | None:
    """The same for two values that `eq` takes for the same; None for what it is not made for:
    null, objects and lists."""
    if isinstance(value, str | int | float):
        return isinstance(value, bool), value
    return None


def _resolve(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, Mapping):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and part.isascii() and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else _ABSENT
        else:
            return _ABSENT
    return value


def _compile(node: Any, path: str, count: list[int]) -> Predicate:
    count[0] += 1
    if count[0] > MAX_NODES:
        raise InvalidCondition(path, f"more than {MAX_NODES} conditions")
    if not isinstance(node, dict):
        raise InvalidCondition(path, "must be an object")
    keys = set(node)
    if keys in ({"all"}, {"any"}):
        (kind,) = keys
        return _compile_group(kind, node[kind], path, count)
    if keys == {"not"}:
        inner = _compile(node["not"], _join(path, "not"), count)
        return lambda facts: not inner(facts)
    if "path" in keys and "op" in keys and keys <= {"path", "op", "value"}:
        return _compile_test(node, path)
    raise InvalidCondition(path, 'needs "all", "any", "not", or "path", "op" and "value"')


def _compile_group(kind: str, children: Any, path: str, count: list[int]) -> Predicate:
    if not isinstance(children, list):
        raise InvalidCondition(_join(path, kind), "must be a list")
    tests = [
        _compile(child, _join(path, f"{kind}.{index}"), count)
        for index, child in enumerate(children)
    ]
    if kind == "all":
        return lambda facts: all(test(facts) for test in tests)
    return lambda facts: any(test(facts) for test in tests)


def _compile_test(node: dict[str, Any], path: str) -> Predicate:
    parts = node["path"]
    if not isinstance(parts, str) or not parts or len(parts) > 200:
        raise InvalidCondition(_join(path, "path"), "must be a dotted path")
    operator = OPERATORS.get(node["op"]) if isinstance(node["op"], str) else None
    if operator is None:
        raise InvalidCondition(_join(path, "op"), f"must be one of {', '.join(OPERATORS)}")
    expected = node.get("value", _ABSENT)
    if node["op"] in UNARY:
        return partial(_test, operator, parts.split("."), None)
    if expected is _ABSENT:
        raise InvalidCondition(_join(path, "value"), "is required")
    if node["op"] in {"in", "not_in"} and not isinstance(expected, list):
        raise InvalidCondition(_join(path, "value"), "must be a list")
    return partial(_test, operator, parts.split("."), expected)


def _test(
    operator: Callable[[Any, Any], bool], parts: list[str], expected: Any, facts: Facts
) -> bool:
    return operator(_resolve(facts, parts), expected)


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _same(actual: Any, expected: Any) -> bool:
    # 1 == True in Python, and a rule `paid eq 1` must not match `paid: true` by that accident.
    return isinstance(actual, bool) == isinstance(expected, bool) and actual == expected


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(actual: Any, expected: Any) -> bool:
        numbers = all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in (actual, expected)
        )
        texts = isinstance(actual, str) and isinstance(expected, str)
        return (numbers or texts) and compare(actual, expected)

    return test


def _contains(actual: Any, expected: Any) -> bool:
    if isinstance(actual, str):
        return isinstance(expected, str) and expected.casefold() in actual.casefold()
    return isinstance(actual, list) and any(_same(item, expected) for item in actual)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _same,
    "ne": lambda a, e: a is not _ABSENT and not _same(a, e),
    "gt": _ordered(lambda a, e: a > e),
    "gte": _ordered(lambda a, e: a >= e),
    "lt": _ordered(lambda a, e: a < e),
    "lte": _ordered(lambda a, e: a <= e),
    "in": lambda a, e: any(_same(a, item) for item in e),
    "not_in": lambda a, e: a is not _ABSENT and not any(_same(a, item) for item in e),
    "contains": _contains,
    "starts_with": lambda a, e: isinstance(a, str) and isinstance(e, str) and a.startswith(e),
    "exists": lambda a, _e: a is not _ABSENT and a is not None,
    "missing": lambda a, _e: a is _ABSENT or a is None,
}
UNARY = frozenset({"exists", "missing"})
