"""A first JSON Schema for payloads that have none: as narrow as what was seen, never narrower.
Pure."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec

from events.schema_rules import MAX_BYTES, PII

_MOST_KEYS = 100
_LONGEST_CHOICE = 40
_MOST_CHOICES = 8
# With fewer samples a text that happens to repeat looks like one of a list.
_CHOICES_FROM = 50

_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}

_FORMATS = {
    name: jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True)
    for name in ("email", "date-time")
}

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PERSONAL = frozenset(
    "email mail phone mobile tel telephone fax birth birthday birthdate dob address street zip "
    "postcode postal gender surname firstname lastname fullname username nickname ip ssn iban "
    "passport".split()
)
_OF_A_PERSON = frozenset(
    "first last full given family middle user customer contact recipient sender display".split()
)


def suggest_schema(payloads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A schema that every one of the payloads fits and that an author may save. It says less
    about the deeper levels where all of it would be too large."""
    for levels in (8, 4, 2, 1):
        schema = {"type": "object", **_object(payloads, levels)}
        if len(msgspec.json.encode(schema)) <= MAX_BYTES // 2:
            return schema
    return {"type": "object"}


def _object(objects: Sequence[Mapping[str, Any]], levels: int) -> dict[str, Any]:
    counts = Counter(key for each in objects for key in each)
    listed = {key for key, _ in counts.most_common(_MOST_KEYS)}
    keys = [key for key in counts if key in listed]  # in the order they were first seen
    if not keys or not levels:
        return {}
    required = [key for key in keys if counts[key] == len(objects)]
    properties = {
        key: _value([each[key] for each in objects if key in each], key, levels - 1) for key in keys
    }
    return {**({"required": required} if required else {}), "properties": properties}


def _value(values: Sequence[Any], name: str, levels: int) -> dict[str, Any]:
    types = {_TYPES[type(value)] for value in values}
    if "number" in types:
        types.discard("integer")
    schema: dict[str, Any] = {"type": sorted(types) if len(types) > 1 else min(types)}
    if types == {"string"}:
        schema |= _text(values)
    if "object" in types:
        schema |= _object([value for value in values if isinstance(value, dict)], levels)
    if "array" in types and levels:
        items = [item for value in values if isinstance(value, list) for item in value]
        schema |= {"items": _value(items, "", levels - 1)} if items else {}
    if _is_personal(name) or schema.get("format") == "email":
        schema[PII] = True
        schema.pop("enum", None)
    return schema


def _text(values: Sequence[str]) -> dict[str, Any]:
    for name, validator in _FORMATS.items():
        if all(validator.is_valid(value) for value in values):
            return {"format": name}
    choices = set(values)
    if (
        len(values) >= _CHOICES_FROM
        and 2 <= len(choices) <= _MOST_CHOICES
        and all(len(choice) <= _LONGEST_CHOICE for choice in choices)
    ):
        return {"enum": sorted(choices)}
    return {}


def _is_personal(name: str) -> bool:
    words = {word.lower() for word in (name, *_WORD.findall(name))}
    words |= {word.removesuffix(end) for word in words for end in ("s", "es")}
    if words & _PERSONAL:
        return True
    return "name" in words and (name.lower() in ("name", "names") or bool(words & _OF_A_PERSON))
