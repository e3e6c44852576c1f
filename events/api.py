"""The intake as Django views: what OpenAPI describes, and what answers under a WSGI server.

`events.asgi` gives the same answers, faster and to bodies of any length.
"""

from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpResponse, UnreadablePostError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.api import ApiError
from common.clock import now
from events import cloudevents, native, segment
from events.bodies import too_large
from events.exchange import Post, WireFormat
from events.intake import answer
from events.segment_calls import KINDS

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
"""No control characters, and not only spaces."""


class EventSerializer(serializers.Serializer[Any]):
    """Documents one event; the parsing is `events.native`, forty times cheaper."""

    event_id = serializers.RegexField(_PRINTABLE, max_length=200)
    event_type = serializers.RegexField(_PRINTABLE, max_length=200)
    user_id = serializers.RegexField(
        _PRINTABLE, max_length=200, required=False, allow_null=True, allow_blank=True
    )
    timestamp = serializers.IntegerField(
        help_text="Unix time in milliseconds", min_value=10**11, max_value=253_402_300_799_999
    )
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
_REFUSALS = {
    400: OpenApiResponse(ERROR, "Wrong shape; `details` names each path."),
    401: OpenApiResponse(ERROR, "No valid API key."),
    403: OpenApiResponse(ERROR, "The key lacks `events:write`."),
    413: OpenApiResponse(ERROR, "The body or the list is too large."),
    415: OpenApiResponse(ERROR, "The encoding or format is not read."),
    429: OpenApiResponse(ERROR, "The key's rate limit; wait for `Retry-After` seconds."),
    503: OpenApiResponse(
        ERROR, "The database is away; send the same again after `Retry-After` seconds."
    ),
}


# A security requirement of OpenAPI; the annotation of `auth` knows only names.
_KEY: Any = [{"apiKey": []}]


class _AnyBody(BaseParser):
    """Nothing is parsed before the intake does it."""

    media_type = "application/json"


class IntakeView(APIView):
    """Hands the request to the intake as it is."""

    authentication_classes = []
    permission_classes = []
    parser_classes = [_AnyBody]
    wire_format: WireFormat

    def post(self, request: Request, path: str = "") -> HttpResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            body = request.body
        except RequestDataTooBig:
            raise too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0) from None
        except UnreadablePostError:
            raise ApiError("unreadable", "The body could not be read to its end.") from None
        reply = answer(Post(path, headers, body, now()), self.wire_format)
        return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


@extend_schema_view(
    post=extend_schema(
        operation_id="post_events",
        auth=_KEY,
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description="Replays the whole answer for 24 hours.",
            )
        ],
        request=EventSerializer,
        responses={
            202: OpenApiResponse(_ITEM, "Committed. A list is answered by `{results: […]}`."),
            409: OpenApiResponse(ERROR, "The id is known with another body."),
            422: OpenApiResponse(ERROR, "Schema, unregistered type, residency or Idempotency-Key."),
            **_REFUSALS,
        },
    )
)
class EventsView(IntakeView):
    """Accepts events. `202` means committed; the same event again is answered the same way."""

    wire_format = native


_SEGMENT_CALL = inline_serializer(
    "SegmentCall",
    {
        "messageId": serializers.CharField(max_length=200, required=False),
        "userId": serializers.CharField(max_length=200, required=False, allow_null=True),
        "anonymousId": serializers.CharField(required=False, allow_null=True),
        "event": serializers.CharField(max_length=200, required=False, help_text="Of `track`."),
        "properties": serializers.DictField(required=False),
        "traits": serializers.DictField(required=False),
        "context": serializers.DictField(required=False),
        "timestamp": serializers.DateTimeField(required=False),
        "sentAt": serializers.DateTimeField(required=False),
        "writeKey": serializers.CharField(required=False, help_text="Instead of a header."),
    },
)
_SEGMENT_ANSWER = inline_serializer(
    "SegmentAnswer",
    {
        "success": serializers.BooleanField(),
        "rejected": serializers.ListField(child=serializers.DictField()),
    },
)


@extend_schema_view(
    post=extend_schema(
        operation_id="post_segment_call",
        auth=_KEY,
        parameters=[
            OpenApiParameter(
                "path",
                OpenApiTypes.STR,
                OpenApiParameter.PATH,
                enum=[*KINDS, "batch"],
            )
        ],
        request=_SEGMENT_CALL,
        responses={
            200: OpenApiResponse(
                _SEGMENT_ANSWER,
                "Committed. Calls that cannot be taken are listed, and kept for replay unless they "
                "may not be held here.",
            ),
            404: OpenApiResponse(ERROR, "There is no such call."),
            **_REFUSALS,
        },
    )
)
class SegmentView(IntakeView):
    """Accepts the calls of Segment's and RudderStack's libraries: one, or with the path `batch` a
    `{"batch": [call, …]}`, each with its `type`. The API key is the write key: the user of HTTP
    Basic, a Bearer token or `writeKey`."""

    wire_format = segment


_CLOUD_EVENT = inline_serializer(
    "CloudEvent",
    {
        "specversion": serializers.ChoiceField(["1.0"]),
        "id": serializers.CharField(max_length=200),
        "source": serializers.CharField(),
        "type": serializers.CharField(max_length=200),
        "subject": serializers.CharField(required=False, help_text="Becomes the user id."),
        "time": serializers.DateTimeField(required=False),
        "datacontenttype": serializers.CharField(required=False),
        "dataschema": serializers.CharField(required=False),
        "data": serializers.DictField(required=False),
        "data_base64": serializers.CharField(required=False),
    },
)


@extend_schema_view(
    post=extend_schema(
        operation_id="post_cloudevents",
        auth=_KEY,
        request={
            "application/cloudevents+json": _CLOUD_EVENT,
            "application/cloudevents-batch+json": serializers.ListSerializer(child=_CLOUD_EVENT),
            "application/json": OpenApiTypes.OBJECT,
        },
        responses={
            202: OpenApiResponse(_ITEM, "Committed. A batch is answered by `{results: […]}`."),
            409: OpenApiResponse(ERROR, "The source and id are known with other data."),
            422: OpenApiResponse(ERROR, "Schema, unregistered type or residency."),
            **_REFUSALS,
        },
    )
)
class CloudEventsView(IntakeView):
    """Accepts CloudEvents 1.0, structured, batched (at most 1,000 events in 5 MB) or binary; an
    event is the same as another when `source` and `id` are."""

    wire_format = cloudevents

    @extend_schema(exclude=True)
    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """The webhook handshake: whoever holds a key may deliver, as fast as the key may post."""
        headers = {"Allow": "POST, OPTIONS"}
        if origin := request.headers.get("WebHook-Request-Origin"):
            headers |= {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}
        return Response(headers=headers)
