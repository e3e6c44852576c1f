"""What a schema says about the fields of a payload besides their shape: which ones are personal
(`x-pii`), which ones nobody should read in passing (`x-sensitive`). Pure."""

from collections.abc import Collection, Mapping
from typing import Any

from events.schema_rules import ITEM, SENSITIVE, Path, unfold
from events.schemas import InvalidSchema, pointer_to

HIDDEN = "••••••"


def marked_paths(schema: Mapping[str, Any], mark: str) -> list[str]:
    """JSON pointers of the payload's fields that carry the mark, sorted; `*` stands for any item
    of a list, `**` for any key that is not named. Raises `InvalidSchema`."""
    return sorted({pointer_to(*map(str, path)) for path in _marked(schema, mark)})


def redacted(payload: Any, schema: Mapping[str, Any]) -> Any:
    """The payload with `HIDDEN` in place of every value that is marked sensitive. Where a schema
    leaves open which of its alternatives applies, all of them count; of one that is no schema,
    everything is hidden."""
    try:
        paths = _marked(schema, SENSITIVE)
    except InvalidSchema:
        return HIDDEN
    return _redacted(payload, paths)


def _marked(schema: Mapping[str, Any], mark: str) -> set[Path]:
    return {path for _, path, part in unfold(schema) if part.get(mark) is True}


def _redacted(value: Any, paths: Collection[Path]) -> Any:
    if not paths:
        return value
    if () in paths:
        return HIDDEN
    if isinstance(value, dict):
        return {key: _redacted(item, _below(paths, key)) for key, item in value.items()}
    if isinstance(value, list):
        items = _below(paths, ITEM)
        return [_redacted(item, items) for item in value]
    return value


def _below(paths: Collection[Path], step: str) -> list[Path]:
    """What is left of the paths that lead through a key, or through an item."""
    return [
        path[1:]
        for path in paths
        if (path[0] == step if isinstance(path[0], str) else step not in path[0].named)
    ]
