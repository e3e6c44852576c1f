"""JSON Schema 2020-12 of event payloads: compiled once, asked for each event. Pure.

`events.schema_rules` says what an author may write; this module assumes that it was asked.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jsonschema_rs
import msgspec

from events.wire import Problem

Check = Callable[[Mapping[str, Any]], Sequence[Problem]]
"""A payload in; what is wrong with it, by JSON pointer, out. Empty: it fits."""

MAX_PROBLEMS = 100
"""Named for one payload."""

# Naming a problem costs ten microseconds, and 256 KB of payload have room for 100,000 of them.
_ALL_NAMED_BELOW = 1_000
_LONGEST_WORD = 200


class InvalidSchema(ValueError):
    """The document is no JSON Schema this project accepts: where, as a JSON pointer into the
    schema, and why."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(f"{pointer or 'The schema'}: {message}")
        self.pointer = pointer
        self.message = message


def compile_schema(schema: Mapping[str, Any]) -> Check:
    """The check a schema stands for; raises `InvalidSchema`.

    Nothing is ever fetched for it, and its patterns take time linear in the text.
    """
    return partial(_problems, _validator(msgspec.json.encode(schema).decode()))


def pointer_to(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of what stands at the end of `path`."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


# The intake reads all types anew whenever one of them has changed.
@lru_cache(maxsize=1_024)
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            ignore_unknown_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1024 * 1024),
            mask="",
        )
    except jsonschema_rs.ValidationError as error:
        raise InvalidSchema(pointer_to(*error.instance_path), _reason(error)) from None


def _reason(error: jsonschema_rs.ValidationError) -> str:
    if error.kind.name == "format":
        return "is no regular expression that runs in linear time (no look-around, no \\1)"
    return error.message.partition(". ")[0][:_LONGEST_WORD]


def _problems(
    validator: jsonschema_rs.Draft202012Validator, payload: Mapping[str, Any]
) -> Sequence[Problem]:
    if validator.is_valid(payload):
        return ()
    if _has_more_nodes(payload, _ALL_NAMED_BELOW):
        try:
            validator.validate(payload)
        except jsonschema_rs.ValidationError as first:
            return tuple(_named(first))
    errors = validator.iter_errors(payload)
    return tuple(problem for error in errors for problem in _named(error))[:MAX_PROBLEMS]


def _has_more_nodes(value: Any, most: int) -> bool:
    waiting = [value]
    while waiting and most >= 0:
        node = waiting.pop()
        most -= 1
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return most < 0


_WORDS = {
    "required": "is required",
    "type": "must be {}",
    "enum": "must be one of {}",
    "const": "must be {}",
    "format": "must have the format {}",
    "pattern": "must match {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be greater than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} keys",
    "maxProperties": "must have at most {} keys",
    "uniqueItems": "must not have the same item twice",
    "contains": "does not have the items it must contain",
    "additionalProperties": "is not allowed here",
    "unevaluatedProperties": "is not allowed here",
    "unevaluatedItems": "has items that are not allowed here",
    "falseSchema": "is not allowed here",
    "propertyNames": "has a key that is not allowed",
    "anyOf": "fits none of the alternatives",
    "oneOf": "must fit exactly one of the alternatives",
    "not": "is what the schema excludes",
}
_NAMES_KEYS = frozenset({"additionalProperties", "unevaluatedProperties"})
_LISTS_CHOICES = frozenset({"type", "enum"})


def _named(error: jsonschema_rs.ValidationError) -> list[Problem]:
    """The problems in an error of the validator; its own words are not used, for they may quote
    the payload."""
    keyword, value, where = error.kind.name, error.kind.value, error.instance_path
    if keyword == "required":
        paths = [[*where, value]]
    elif keyword in _NAMES_KEYS:
        paths = [[*where, key] for key in sorted(value)]
    else:
        paths = [where]
    message = _message(error)
    return [Problem(pointer_to(*path), message) for path in paths]


def _message(error: jsonschema_rs.ValidationError) -> str:
    keyword, value = error.kind.name, error.kind.value
    # Where no key at all is allowed, the validator names none.
    if keyword == "falseSchema" and error.schema_path[-1:] == ["additionalProperties"]:
        return "must have no keys"
    words = _WORDS.get(keyword, "does not fit the schema")
    if "{}" not in words:
        return words
    return words.format(_expected(value if keyword in _LISTS_CHOICES else [value]))


def _expected(choices: Sequence[Any]) -> str:
    """What the schema asks for, in its own words: the author wrote them, not the producer."""
    text = " or ".join(
        str(choice) if isinstance(choice, str) else msgspec.json.encode(choice).decode()
        for choice in choices
    )
    return text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}…"
