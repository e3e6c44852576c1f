"""What an author may write as the JSON Schema of a payload, and where each part of it applies.
Pure.

The rules keep a schema from doing what no payload should cost: its references stand in the
document and go in no circle, so that every payload is checked in time linear in its size.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import jsonschema
import msgspec
from jsonschema.exceptions import best_match
from jsonschema_specifications import REGISTRY

from events.schemas import InvalidSchema, compile_schema, pointer_to

MAX_BYTES = 64 * 1024
MAX_LEVELS = 32
MAX_DEPTH = 100
"""Subschemas from the outermost to the innermost one, references followed."""
MAX_PARTS = 5_000
"""Subschemas, each counted as often as it is referred to."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PII = "x-pii"
SENSITIVE = "x-sensitive"
MARKS = (PII, SENSITIVE)

ITEM = "*"
"""A step to any item of a list."""


class Other(msgspec.Struct, frozen=True):
    """A step to any key but the named ones."""

    named: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "**"


Path = tuple[str | Other, ...]
"""Steps into a payload."""
Part = tuple[str, Path, dict[str, Any]]
"""A subschema: its JSON pointer in the document, the path it applies to, itself."""

_VOCABULARIES = ("core", "applicator", "unevaluated", "validation", "meta-data", "content")
# They rename or move what a reference means; one local way to refer is enough.
_NOT_READ = frozenset(
    {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "contentSchema"}
)

_HERE = ("if", "then", "else", "not", "propertyNames")
_HERE_LISTED = ("allOf", "anyOf", "oneOf")
_ITEMS = ("items", "contains", "unevaluatedItems")
_OTHERS = ("additionalProperties", "unevaluatedProperties")
_NAMED = ("properties", "patternProperties", "dependentSchemas")
_HOLD_ONE = frozenset({*_HERE, *_ITEMS, *_OTHERS})
_HOLD_MANY = frozenset({*_HERE_LISTED, "prefixItems", *_NAMED, "$defs"})


def check_schema(schema: Any) -> None:
    """Raises `InvalidSchema` for the first thing that is wrong."""
    if not isinstance(schema, dict):
        raise InvalidSchema("", "must be an object")
    if len(msgspec.json.encode(schema)) > MAX_BYTES:
        raise InvalidSchema("", f"is larger than {MAX_BYTES} bytes")
    if _is_deeper(schema, MAX_LEVELS):
        raise InvalidSchema("", f"is nested deeper than {MAX_LEVELS} levels")
    if schema.get("$schema", DIALECT) != DIALECT:
        raise InvalidSchema("/$schema", f"must be {DIALECT} or left out")
    _check_against_dialect(schema)
    if schema.get("type") != "object":
        raise InvalidSchema("/type", 'must be "object": every payload is one')
    for number, (pointer, _, part) in enumerate(unfold(schema)):
        if number == MAX_PARTS:
            raise InvalidSchema("", f"has more than {MAX_PARTS} parts, references followed")
        _check_part(pointer, part)
    compile_schema(schema)


def unfold(schema: Mapping[str, Any]) -> Iterator[Part]:
    """Every subschema that applies to something, references followed; raises `InvalidSchema` for
    a reference that leads nowhere or round in a circle."""
    return _unfold(schema, "", (), schema, (), MAX_DEPTH)


def _unfold(
    part: Any,
    pointer: str,
    path: Path,
    root: Mapping[str, Any],
    followed: tuple[str, ...],
    depth: int,
) -> Iterator[Part]:
    if not isinstance(part, dict):  # true and false are schemas
        return
    if depth == 0:
        raise InvalidSchema(pointer, f"lies deeper than {MAX_DEPTH} levels, references followed")
    yield pointer, path, part
    for steps, further, child in _children(part):
        below = pointer + pointer_to(*steps)
        yield from _unfold(child, below, path + further, root, followed, depth - 1)
    if "$ref" in part:
        reference, where = part["$ref"], f"{pointer}/$ref"
        if reference in followed:
            raise InvalidSchema(where, "refers to itself, by a circle")
        target = _target(reference, root, where)
        yield from _unfold(target, reference[1:], path, root, (*followed, reference), depth - 1)


def _children(part: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Path, Any]]:
    """The schemas right below this one: steps in the document, steps in the payload, schema."""
    others = Other(frozenset(part.get("properties", ())))
    for keywords, further in ((_HERE, ()), (_ITEMS, (ITEM,)), (_OTHERS, (others,))):
        for keyword in keywords:
            if keyword in part:
                yield (keyword,), further, part[keyword]
    for keyword in (*_HERE_LISTED, "prefixItems"):
        further = (ITEM,) if keyword == "prefixItems" else ()
        for index, child in enumerate(part.get(keyword, ())):
            yield (keyword, index), further, child
    for keyword in _NAMED:
        for key, child in part.get(keyword, {}).items():
            yield (keyword, key), _named_path(keyword, key), child


def _named_path(keyword: str, key: str) -> Path:
    if keyword == "properties":
        return (key,)
    return (Other(),) if keyword == "patternProperties" else ()


def _target(reference: str, root: Mapping[str, Any], where: str) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        raise InvalidSchema(where, "must begin with #/: nothing is fetched from elsewhere")
    target: Any = root
    is_schema = True
    for step in unquote(reference).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        # Elsewhere, in `examples` for one, the dialect has not been asked what stands there.
        known = not is_schema or key in _HOLD_ONE or key in _HOLD_MANY
        target = _entry(target, key) if known else None
        is_schema = not is_schema or key in _HOLD_ONE
    if not is_schema or not isinstance(target, dict | bool):
        raise InvalidSchema(where, "leads to no schema in this document")
    return target


def _entry(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return container.get(key)
    if isinstance(container, list) and key.isdecimal() and int(key) < len(container):
        return container[int(key)]
    return None


def _check_part(pointer: str, part: dict[str, Any]) -> None:
    for keyword, value in part.items():
        where = f"{pointer}{pointer_to(keyword)}"
        if keyword in MARKS and not isinstance(value, bool):
            raise InvalidSchema(where, "must be true or false")
        if keyword.startswith("x-"):
            continue
        if keyword not in _keywords():
            raise InvalidSchema(where, "is no keyword of JSON Schema; notes begin with x-")
        if keyword in _NOT_READ or (keyword == "$schema" and pointer):
            raise InvalidSchema(where, "is not supported")


@cache
def _keywords() -> frozenset[str]:
    base = DIALECT.rpartition("/")[0]
    vocabularies = [REGISTRY.contents(f"{base}/meta/{name}") for name in _VOCABULARIES]
    names = (name for vocabulary in vocabularies for name in vocabulary["properties"])
    return frozenset({*names, "format"})


def _check_against_dialect(schema: dict[str, Any]) -> None:
    meta = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    error = best_match(meta.iter_errors(schema))
    if error is not None:
        # The alternatives of `type`: the first one lists the names.
        detail = error.context[0] if error.context else error
        raise InvalidSchema(pointer_to(*error.absolute_path), detail.message[:300])


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)
