"""`GET /api/v1/messages`: what became of each mail, for scripts."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import generics, serializers

from common.addresses import InvalidAddress, parse_address
from common.api import ApiError, Pages
from delivery.models import Attempt, Message
from delivery.states import MessageState
from events.models import Scope


class AttemptSerializer(serializers.ModelSerializer[Attempt]):
    """One hand-over and what the provider said."""

    provider = serializers.CharField(source="provider.key")

    class Meta:
        model = Attempt
        fields = ["number", "provider", "verdict", "detail", "at"]


class MessageSerializer(serializers.ModelSerializer[Message]):
    """One message. `reason` says why it was not sent, or not yet."""

    event_id = serializers.CharField(source="origin_event_id")
    campaign = serializers.CharField(source="origin_campaign")
    step = serializers.CharField(source="origin_step")
    topic = serializers.CharField(source="topic.key", default=None)
    template = serializers.CharField(source="template_version.template.key")
    template_version = serializers.IntegerField(source="template_version.number")
    provider = serializers.CharField(source="provider.key", default=None)

    class Meta:
        model = Message
        fields = [
            "id",
            "state",
            "reason",
            "detail",
            "email",
            "event_id",
            "campaign",
            "step",
            "stream",
            "topic",
            "template",
            "template_version",
            "provider",
            "esp_id",
            "attempts",
            "created_at",
            "due_at",
            "sent_at",
            "delivered_at",
            "opened_at",
            "clicked_at",
            "bounced_at",
            "complained_at",
            "unsubscribed_at",
        ]


class MessageDetailSerializer(MessageSerializer):
    """One message with its attempts."""

    attempt_log = AttemptSerializer(many=True)

    class Meta(MessageSerializer.Meta):
        fields = [*MessageSerializer.Meta.fields, "attempt_log"]


_FILTERS = frozenset({"email", "event_id", "state", "page", "page_size"})
_RELATED = ("topic", "provider", "template_version__template")


@extend_schema_view(
    get=extend_schema(
        operation_id="list_messages",
        parameters=[
            OpenApiParameter("email", str, description="The recipient's address"),
            OpenApiParameter("event_id", str, description="The event that led to it"),
            OpenApiParameter("state", str, enum=MessageState.values),
        ],
    )
)
class MessagesView(generics.ListAPIView[Message]):
    """Messages, newest first; filters `email`, `event_id` and `state` narrow down together."""

    required_scope = Scope.MESSAGES_READ
    serializer_class = MessageSerializer
    pagination_class = Pages
    queryset = Message.objects.select_related(*_RELATED).order_by("-pk")

    def get_queryset(self) -> QuerySet[Message]:
        return _filtered(super().get_queryset(), self.request.query_params.dict())


@extend_schema_view(get=extend_schema(operation_id="get_message"))
class MessageView(generics.RetrieveAPIView[Message]):
    """One message with its attempts."""

    required_scope = Scope.MESSAGES_READ
    serializer_class = MessageDetailSerializer
    queryset = Message.objects.select_related(*_RELATED).prefetch_related("attempt_log__provider")


def _filtered(messages: QuerySet[Message], wanted: dict[str, Any]) -> QuerySet[Message]:
    if unknown := wanted.keys() - _FILTERS:
        raise _invalid(min(unknown), f"is none of {', '.join(sorted(_FILTERS))}")
    if email := wanted.get("email"):
        messages = messages.filter(email_normalized=_normalized(email))
    if event_id := wanted.get("event_id"):
        messages = messages.filter(origin_event_id=_without_nul("event_id", event_id))
    if state := wanted.get("state"):
        if state not in MessageState.values:
            raise _invalid("state", f"must be one of {', '.join(MessageState.values)}")
        messages = messages.filter(state=state)
    return messages


def _normalized(email: str) -> str:
    try:
        return parse_address(email).normalized
    except InvalidAddress:
        raise _invalid("email", "is not an e-mail address") from None


def _without_nul(name: str, value: str) -> str:
    if "\x00" in value:
        raise _invalid(name, "must not contain NUL")
    return value


def _invalid(name: str, message: str) -> ApiError:
    return ApiError("invalid", f"{name}: {message}", details=[{"path": name, "message": message}])
