"""Segment's tracking API, as its client libraries and RudderStack's speak it:
`POST /segment/v1/{track,identify,page,screen,group,alias,batch}`. Pure, but for ids it assigns.

Those libraries take 200, and RudderStack's nothing else, for "you need not send this again"; a
400 makes them drop a whole batch. So what is wrong with single calls is said in the answer, and
they are kept for replay, in the native format as far as they can be put into it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from common.api import ApiError, decode_json
from common.clock import from_iso8601
from events import native
from events.directory import Producer
from events.exchange import Post, Reading, Reply
from events.native import MAX_BATCH, refuse_too_many
from events.segment_calls import KINDS, Frame, read_call
from events.wire import Item, Outcome, Problem, Refusal

MAX_BODY = native.MAX_BODY
"""Segment's libraries close a batch at 500 KB, RudderStack's at 4 MB, and give up one that is
refused for its size."""
REPLAYS = False

_BATCH = "batch"
_SHORT = {call[0]: call for call in (*KINDS, _BATCH)}
"""What Segment's browser library writes."""


class _Key(msgspec.Struct, rename="camel"):
    write_key: str | None = None


def token(post: Post) -> str:
    """The body's `writeKey`."""
    try:
        return msgspec.json.decode(post.body, type=_Key).write_key or ""
    except (ValueError, RecursionError):
        return ""


def read(post: Post, producer: Producer) -> Reading:
    """One call of the kind the path names, or `{"batch": […]}` of any kinds."""
    call = _SHORT.get(post.path, post.path)
    if call != _BATCH and call not in KINDS:
        raise ApiError("not_found", "There is no such call.", status_code=404)
    body = decode_json(post.body)
    if not isinstance(body, dict):
        raise ApiError("invalid", "The body must be an object.")
    frame = Frame(producer.source, post.received_at, _sent_at(body.get("sentAt")))
    if call == _BATCH:
        return Reading(_read_batch(body, frame), partial(_answer, _BATCH), keeps_refused=True)
    item = read_call({**body, "type": call}, frame)
    return Reading([item], partial(_answer, ""), keeps_refused=True)


def _sent_at(value: Any) -> datetime | None:
    try:
        return from_iso8601(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _read_batch(body: Mapping[str, Any], frame: Frame) -> list[Item]:
    calls = body.get(_BATCH)
    if not isinstance(calls, list):
        problem = Problem(_BATCH, "must be a list")
        raise ApiError("invalid", "batch: must be a list", details=[problem.as_detail()])
    refuse_too_many(calls, MAX_BATCH)
    context = body.get("context")
    if isinstance(context, dict):
        frame = msgspec.structs.replace(frame, context=context)
    return [read_call(call, frame) for call in calls]


def _answer(parent: str, items: Sequence[Item], outcomes: Sequence[Outcome]) -> Reply:
    """200: nothing has to be sent again. A known id is fine, whatever its body."""
    rejected = [
        _rejection(outcome, index, f"{parent}.{index}" if parent else "")
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, Refusal)
    ]
    return Reply.of(200, {"success": True, "rejected": rejected})


def _rejection(refusal: Refusal, index: int, parent: str) -> dict[str, Any]:
    problems = [problem.below(parent) if parent else problem for problem in refusal.problems]
    return {
        "index": index,
        "messageId": refusal.event_id or None,
        "code": refusal.code.value,
        "message": f"{problems[0].path}: {problems[0].message}",
        "details": [problem.as_detail() for problem in problems],
    }
