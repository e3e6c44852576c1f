"""`POST /api/v1/events`: one event or a list."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.api import ApiError
from events.models import ApiKey, Scope
from events.services import Recorded, record_events
from events.wire import EventIn, Problem, parse_event

MAX_BATCH = 1_000


class EventSerializer(serializers.Serializer[Any]):
    """Documents the body for OpenAPI; the parsing is `events.wire`, forty times cheaper."""

    event_id = serializers.CharField(max_length=200)
    event_type = serializers.CharField(max_length=200)
    user_id = serializers.CharField(max_length=200, required=False, allow_null=True)
    timestamp = serializers.IntegerField(help_text="Unix time in milliseconds")
    payload = serializers.DictField()
    metadata = serializers.DictField(required=False)


_ITEM = inline_serializer(
    "EventAnswer",
    {
        "event_id": serializers.CharField(),
        "status": serializers.ChoiceField(["accepted", "duplicate", "invalid"]),
        "code": serializers.CharField(required=False),
        "details": serializers.ListField(child=serializers.DictField(), required=False),
    },
)
ERROR = inline_serializer(
    "Error",
    {
        "code": serializers.CharField(),
        "message": serializers.CharField(),
        "details": serializers.ListField(child=serializers.DictField()),
    },
)


class EventsView(APIView):
    """Accepts events. `202` means committed; the same event again is answered the same way."""

    required_scope = Scope.EVENTS_WRITE

    @extend_schema(
        operation_id="post_events",
        request=EventSerializer,
        responses={
            202: OpenApiResponse(_ITEM, "Committed. A list is answered by `{results: […]}`."),
            400: OpenApiResponse(ERROR, "Wrong shape; `details` names each path."),
            401: OpenApiResponse(ERROR, "No valid API key."),
            403: OpenApiResponse(ERROR, "The key lacks `events:write`."),
            409: OpenApiResponse(ERROR, "The id is known with another body."),
            413: OpenApiResponse(ERROR, "Larger than 5 MB or more than 1,000 events."),
        },
    )
    def post(self, request: Request) -> Response:
        assert isinstance(request.auth, ApiKey)  # HasScope has asked
        if isinstance(request.data, list):
            return _answer_list(request.data, request.auth.source)
        return _answer_one(request.data, request.auth.source)


def _answer_one(document: Any, source: str) -> Response:
    event = parse_event(document)
    if not isinstance(event, EventIn):
        raise _invalid(event)
    (recorded,) = record_events([event], source=source)
    if recorded is Recorded.CONFLICT:
        raise ApiError(
            "conflict",
            "This event_id was already accepted with another body.",
            status_code=status.HTTP_409_CONFLICT,
            details=[{"path": "event_id", "message": "known with another body"}],
        )
    # The same answer for the first post and for every repetition; the header tells them apart.
    headers = {"Idempotent-Replayed": "true"} if recorded is Recorded.DUPLICATE else None
    return Response(
        {"event_id": event.event_id, "status": "accepted"},
        status=status.HTTP_202_ACCEPTED,
        headers=headers,
    )


def _answer_list(documents: list[Any], source: str) -> Response:
    if not documents:
        raise ApiError("invalid", "The list is empty.")
    if len(documents) > MAX_BATCH:
        raise ApiError(
            "too_many",
            f"At most {MAX_BATCH} events in one request, not {len(documents)}.",
            status_code=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        )
    parsed = [parse_event(document) for document in documents]
    good = [event for event in parsed if isinstance(event, EventIn)]
    if not good:
        raise _invalid([_nested(i, p) for i, ps in enumerate(parsed) for p in _problems(ps)])
    recorded = iter(record_events(good, source=source))
    results = [
        _result(event, next(recorded)) if isinstance(event, EventIn) else _bad_result(i, event, doc)
        for i, (event, doc) in enumerate(zip(parsed, documents, strict=True))
    ]
    return Response({"results": results}, status=status.HTTP_202_ACCEPTED)


def _result(event: EventIn, recorded: Recorded) -> dict[str, Any]:
    if recorded is Recorded.CONFLICT:
        return {"event_id": event.event_id, "status": "invalid", "code": "conflict"}
    return {"event_id": event.event_id, "status": recorded.value}


def _bad_result(index: int, problems: list[Problem], document: Any) -> dict[str, Any]:
    event_id = document.get("event_id") if isinstance(document, dict) else None
    return {
        "event_id": event_id if isinstance(event_id, str) else None,
        "status": "invalid",
        "code": "invalid",
        "details": [_nested(index, problem).as_detail() for problem in problems],
    }


def _problems(parsed: EventIn | list[Problem]) -> list[Problem]:
    return [] if isinstance(parsed, EventIn) else parsed


def _nested(index: int, problem: Problem) -> Problem:
    return Problem(f"{index}.{problem.path}" if problem.path else str(index), problem.message)


def _invalid(problems: list[Problem]) -> ApiError:
    first = problems[0]
    return ApiError(
        "invalid",
        f"{first.path or 'event'}: {first.message}",
        details=[problem.as_detail() for problem in problems[:100]],
    )
