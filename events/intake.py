"""From a request to an answer: who posts, how much, what, and what became of it."""

import base64
import binascii
import zlib
from collections.abc import Mapping

import msgspec
from rest_framework import exceptions

from common.api import ApiError, error_body
from events.admission import admit
from events.bodies import too_large
from events.directory import Producer, Rules, producers, rules
from events.exchange import Post, Reading, Reply, WireFormat
from events.idempotency import answer_once, key_of
from events.limits import charge
from events.models import ApiKey, Scope
from events.services import submit

_LONGEST_TOKEN = 200


def answer(post: Post, wire_format: WireFormat) -> Reply:
    """The whole way, on the caller's thread and database connection."""
    try:
        encoding = post.headers.get("content-encoding", "").strip().lower()
        body = inflated(post.body, encoding, wire_format.MAX_BODY)
        post = msgspec.structs.replace(post, body=body)
        token = credentials(post.headers) or wire_format.token(post)
        producer = authorised(producers.get(token) if is_plausible(token) else None)
        reading = read(post, wire_format, producer, rules.get(None))
        charge(producer, len(reading.items))
        if wire_format.REPLAYS and (key := key_of(post)):
            return answer_once(key, post, producer, reading)
        return reading.answer(reading.items, submit(reading.items))
    except exceptions.APIException as error:
        return error_reply(error)


def credentials(headers: Mapping[str, str]) -> str:
    """The API key in `Authorization`: a Bearer token, or the user of HTTP Basic, which is how
    Segment's clients send their write key. Empty when there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""


def is_plausible(token: str) -> bool:
    """Whether it looks like an API key. What does not is neither looked up nor remembered: a
    stranger's megabytes would stay in memory."""
    return len(token) <= _LONGEST_TOKEN and token.startswith(ApiKey.PREFIX)


def authorised(producer: Producer | None) -> Producer:
    """The producer, if there is one and it may post events."""
    if producer is None:
        raise ApiError("not_authenticated", "Send a valid API key.", status_code=401)
    if Scope.EVENTS_WRITE.value not in producer.scopes:
        raise ApiError("permission_denied", "The key lacks events:write.", status_code=403)
    return producer


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its `Content-Encoding`; never more than `limit` bytes come into being."""
    if len(body) > limit:
        raise too_large(limit)
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise ApiError(
            "unsupported_encoding",
            f"Content-Encoding {encoding[:20]!r} is not read; use gzip.",
            status_code=415,
        )
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ApiError("invalid_gzip", "The body is not valid gzip.") from None
    if len(text) > limit:
        raise too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise ApiError("invalid_gzip", "The body is not one complete gzip stream.")
    return text


def read(post: Post, wire_format: WireFormat, producer: Producer, rules: Rules) -> Reading:
    """The admitted and refused items of a request. CPU only: for a large body, call it where it
    keeps nobody waiting."""
    reading = wire_format.read(post, producer)
    admitted = admit(reading.items, rules, keeps_refused=reading.keeps_refused)
    return Reading(admitted, reading.answer)


def error_reply(error: exceptions.APIException) -> Reply:
    """The answer that is no success, in the shape that all of them have."""
    headers: dict[str, str] = {}
    if error.status_code == 401:
        headers["www_authenticate"] = "Bearer"
    if wait := getattr(error, "wait", None):
        headers["retry_after"] = str(max(1, round(wait + 0.5)))
    return Reply.of(error.status_code, error_body(error), **headers)
