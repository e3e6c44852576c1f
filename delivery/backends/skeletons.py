"""What many bodies have in common, once, and what is each one's own. Pure."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

Mark = Callable[[str], str]
"""How a field of a name is written where its value belongs."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """`text` with the values of each of `own`, by their fields' names, in the places of the marked
    fields is each of the bodies, in their order.

    Each field stands in the text once and in nothing that is put into it, nor does any other
    skeleton's: whoever fills the fields one after the other fills no value.
    """

    text: str
    own: Sequence[Mapping[str, str]]


def skeleton_of(
    bodies: Sequence[str], mark: Mark, *, not_before: str = "", not_behind: str = ""
) -> Skeleton:
    """The bodies, divided where they have a line in common, and of each part what differs.

    No field has one of these characters beside it: they go into the values.
    """
    name = _unheard_of(bodies)
    text: list[str] = []
    own: list[dict[str, str]] = [{} for _ in bodies]
    for number, parts in enumerate(_divided([body.splitlines(keepends=True) for body in bodies])):
        if parts.count(parts[0]) == len(parts):
            text.append(parts[0])
            continue
        head = _beginning(parts)
        rest = [part[len(head) :] for part in parts]
        tail = _beginning([part[::-1] for part in rest])[::-1]
        head, tail = head.rstrip(not_before), tail.lstrip(not_behind)
        field = f"{name}_{number}"
        text.append(f"{head}{mark(field)}{tail}")
        for values, part in zip(own, parts, strict=True):
            values[field] = part[len(head) : len(part) - len(tail)]
    return Skeleton("".join(text), own)


def whole(texts: Sequence[str], mark: Mark) -> Skeleton:
    """The texts, undivided: one field, unless they are the same."""
    if len(set(texts)) == 1:
        return Skeleton(texts[0], [{} for _ in texts])
    field = _unheard_of(texts)
    return Skeleton(mark(field), [{field: text} for text in texts])


def merged(skeletons: Sequence[Skeleton], place: int) -> dict[str, str]:
    """The values of one recipient, of all skeletons."""
    return {field: value for s in skeletons for field, value in s.own[place].items()}


def _divided(bodies: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """The bodies from one line to the next that stands in each of them once, in the same order."""
    places = [{line: place for place, line in enumerate(lines)} for lines in bodies]
    counts = [Counter(lines) for lines in bodies]
    begun = [0] * len(bodies)
    for line in bodies[0]:
        if not all(count[line] == 1 for count in counts):
            continue
        found = [place[line] for place in places]
        if all(place >= start for place, start in zip(found, begun, strict=True)):
            ends = [place + 1 for place in found]
            yield [line] * len(bodies) if found == begun else _between(bodies, begun, ends)
            begun = ends
    yield _between(bodies, begun, [len(lines) for lines in bodies])


def _between(
    bodies: Sequence[Sequence[str]], begun: Sequence[int], ends: Sequence[int]
) -> list[str]:
    return ["".join(b[start:end]) for b, start, end in zip(bodies, begun, ends, strict=True)]


def _beginning(texts: Sequence[str]) -> str:
    """That all of them have: whatever stands between two in the alphabet begins as they do."""
    first, last = min(texts), max(texts)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return first[: sum(1 for _ in alike)]


def _unheard_of(bodies: Sequence[str]) -> str:
    """A name that the bodies do not know, the same for the same bodies; letters and digits."""
    digest = hashlib.sha256()
    for body in bodies:
        digest.update(hashlib.sha256(body.encode()).digest())
    return f"f{digest.hexdigest()[:20]}"
