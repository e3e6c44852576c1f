"""`Idempotency-Key`: the answer to a whole request, kept for 24 hours and given again.

`event_id` makes an event count once for as long as events are kept; this makes a client that lost
an answer get the very same one.
"""

import hashlib
from datetime import timedelta

from django.db import connection, transaction
from django.db.models.functions import Now

from common.api import ApiError
from events.directory import Producer
from events.exchange import Post, Reading, Reply
from events.models import IdempotentReply
from events.services import submit

KEPT = timedelta(hours=24)
MAX_KEY = 255


def key_of(post: Post) -> str:
    """The request's `Idempotency-Key`, or nothing; raises `ApiError` when it cannot be one."""
    key = post.headers.get("idempotency-key", "")
    if len(key) > MAX_KEY or not key.isprintable():
        raise ApiError("invalid", f"Idempotency-Key: at most {MAX_KEY} printable characters.")
    return key


def answer_once(key: str, post: Post, producer: Producer, reading: Reading) -> Reply:
    """Keep the events and their answer in one transaction, or give the answer of before.

    The same key with another body is a 422; while the first request is at work, a 409.
    """
    digest = hashlib.sha256(post.body).digest()
    with transaction.atomic():
        _lock(producer.source, key)
        known = IdempotentReply.objects.filter(
            source=producer.source, key=key, created_at__gt=Now() - KEPT
        ).first()
        if known is not None:
            return _again(known, digest)
        outcomes = submit(reading.items)
        try:
            reply = reading.answer(reading.items, outcomes)
        except ApiError as error:  # raised outside of the transaction, which has to commit
            refused: ApiError | None = error
        else:
            refused = None
            _keep(IdempotentReply(source=producer.source, key=key, body_hash=digest), reply)
    if refused is not None:
        raise refused
    return reply


def lock_number(source: str, key: str) -> int:
    """The advisory lock that whoever answers the request holds."""
    digest = hashlib.sha256(f"reply:{source}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _lock(source: str, key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_number(source, key)])
        if not cursor.fetchone()[0]:
            raise ApiError(
                "in_progress",
                "A request with this Idempotency-Key is being answered.",
                status_code=409,
                wait=1,
            )


def _again(known: IdempotentReply, digest: bytes) -> Reply:
    if bytes(known.body_hash) != digest:
        raise ApiError(
            "idempotency_key_reused",
            "This Idempotency-Key was used with another body.",
            status_code=422,
        )
    headers = {"content-type": "application/json", "idempotent-replayed": "true"}
    return Reply(known.status, bytes(known.body), headers)


def _keep(row: IdempotentReply, reply: Reply) -> None:
    row.status, row.body = reply.status, reply.body
    IdempotentReply.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["source", "key"],
        update_fields=["body_hash", "status", "body", "created_at"],
    )
