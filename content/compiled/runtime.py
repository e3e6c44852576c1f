"""What the code of a compiled template calls. Each does what python-liquid does with the same
values, or raises: then python-liquid does it (see the package)."""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from liquid.ast import Node
from liquid.builtin.expressions.primitive import Blank, Empty
from liquid.builtin.tags.for_tag import ForLoop
from liquid.exceptions import BreakLoop, ContinueLoop
from liquid.limits import to_int
from liquid.output import LimitedStringIO
from liquid.undefined import Undefined

from content.sandbox import MAX_OUTPUT, Context, bounded, pieces_of
from content.values import MAX_ITEMS

LONGEST: Final = MAX_OUTPUT // 4
"""Characters the code writes before it leaves the counting of octets to python-liquid. A character
has four at most, so below this no limit can have been reached."""

ABSENT: Final = object()
"""A `limit` or `offset` that is not written."""
CONTINUE: Final = object()
"""`offset: continue`."""


class GaveUp(Exception):
    """This is left to python-liquid."""


def give_up() -> None:
    """Raises `GaveUp`."""
    raise GaveUp


# --- Values -------------------------------------------------------------------------------


def charged(context: Context, value: object) -> object:
    """The value of a path, paid for."""
    if pieces := pieces_of(value):
        context.spend(pieces)
    return value


def item(context: Context, value: Any, key: object) -> object:
    """One step of a path; what is missing is null."""
    try:
        return context.get_item(value, key)
    except (KeyError, TypeError, IndexError):
        return None


def size_of(context: Context, value: Any, key: object) -> object:
    """`item` where the key is `size`."""
    return len(value) if value.__class__ is list else item(context, value, key)


def filtered(
    context: Context,
    function: Callable[..., object],
    value: object,
    /,
    *arguments: object,
    **options: object,
) -> object:
    """The value behind a filter, measured and paid for."""
    result = bounded(function(value, *arguments, **options))
    context.spend(1 + pieces_of(value) + pieces_of(result))
    return result


def range_of(start: Any, stop: Any) -> range:
    """`(start..stop)`; what is no number is 0."""
    first, last = _whole(start), _whole(stop)
    if last - first >= MAX_ITEMS:
        raise GaveUp
    return range(first, last + 1) if first <= last else range(0)


def _whole(value: Any) -> int:
    try:
        return to_int(value)
    except (ValueError, TypeError):
        return 0


def unix(text: str) -> str:
    """The text as python-liquid's output keeps it: each line ends with one character."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- Conditions ---------------------------------------------------------------------------

# What is compared most, with no need to ask further.
_ORDERED: Final = frozenset({int, float, str})


def eq(left: Any, right: Any) -> bool:
    """`left == right`; 1 is not true."""
    if isinstance(left, Undefined):
        return right is None or isinstance(right, Undefined)
    if isinstance(right, Undefined):
        return left is None
    if isinstance(right, Empty | Blank):
        left, right = right, left
    if isinstance(right, bool):
        left, right = right, left
    if isinstance(left, bool):
        return isinstance(right, bool) and left == right
    return bool(left == right)


def blank(value: Any) -> bool:
    """`value == blank`."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    return (isinstance(value, list | dict) and not value) or isinstance(value, Blank)


def lt(left: Any, right: Any) -> bool:
    """`left < right`; nothing is less or more than null."""
    if left.__class__ is right.__class__ and left.__class__ in _ORDERED:
        return bool(left < right)
    if (isinstance(left, str) and isinstance(right, str)) or _are_numbers(left, right):
        return bool(left < right)
    if _is_null(left) or _is_null(right):
        return False
    raise GaveUp


def le(left: Any, right: Any) -> bool:
    """`left <= right`."""
    if left.__class__ is right.__class__ and left.__class__ in _ORDERED:
        return bool(left <= right)
    if isinstance(left, str) and isinstance(right, str):
        return left <= right
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if _are_numbers(left, right):
        return bool(left <= right)
    if _is_null(left) or _is_null(right):
        return False
    return eq(left, right)


def contains(left: Any, right: Any) -> bool:
    """`left contains right`."""
    if any(_is_null(side) or side is False for side in (left, right)):
        return False
    if isinstance(left, str):
        return str(right) in left
    if isinstance(left, Collection):
        return right in left
    raise GaveUp


def _are_numbers(left: object, right: object) -> bool:
    return isinstance(left, int | float | Decimal) and isinstance(right, int | float | Decimal)


def _is_null(value: object) -> bool:
    return value is None or isinstance(value, Undefined)


# --- Loops --------------------------------------------------------------------------------


def items(value: Any) -> Sequence[Any]:
    """What a loop over the value walks through."""
    if isinstance(value, list | tuple | range):
        return value
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, str):
        return [value] if value else ()
    if isinstance(value, ForLoop):
        raise GaveUp
    return ()


def sliced(
    stops: dict[str, int], key: str, sequence: Sequence[Any], limit: Any, offset: Any
) -> Sequence[Any]:
    """The part of it that `limit` and `offset` leave; where it ends is kept for the next loop with
    the same key. A limit of 0 is none."""
    if offset is ABSENT:
        offset = 0
    start = stops.get(key, 0) if offset is CONTINUE else to_int(offset)
    stop = 0 if limit is ABSENT else to_int(limit) + start
    end = min(stop or len(sequence), len(sequence))
    if end < 0:
        raise GaveUp
    stops[key] = end
    return sequence[min(max(start, 0), len(sequence)) : end]


# --- Nodes that stay python-liquid's ------------------------------------------------------


def by_liquid(
    context: Context, node: Node, write: Callable[[str], None], size: int
) -> tuple[int, int]:
    """Print the node; whether it ends a round of the loop (2), the loop (1) or nothing (0), and
    the size with what it printed."""
    # In octets, so that together with what stands before it at most `LONGEST` octets more than
    # that have been printed when it stops.
    buffer = LimitedStringIO(limit=LONGEST - size)
    jump = 0
    try:
        node.render(context, buffer)
    except BreakLoop:
        jump = 1
    except ContinueLoop:
        jump = 2
    write(buffer.getvalue())
    return jump, size + buffer.size


HELPERS: Final[Mapping[str, object]] = {
    "ABSENT": ABSENT,
    "CONTINUE": CONTINUE,
    "ForLoop": ForLoop,
    "Undefined": Undefined,
    "blank": blank,
    "by_liquid": by_liquid,
    "charged": charged,
    "contains": contains,
    "dict": dict,
    "enumerate": enumerate,
    "eq": eq,
    "filtered": filtered,
    "give_up": give_up,
    "int": int,
    "item": item,
    "items": items,
    "iter": iter,
    "le": le,
    "len": len,
    "lt": lt,
    "range": range,
    "range_of": range_of,
    "size_of": size_of,
    "sliced": sliced,
    "str": str,
    "unix": unix,
}
"""By the names the code knows them under."""
