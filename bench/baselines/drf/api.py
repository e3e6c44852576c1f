"""The views. Nothing here is slower than it has to be while it stays plain DRF: one query finds
the token, one INSERT stores an event, a list shares one transaction."""

from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, transaction
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from bench.baselines.drf.models import Event


class Milliseconds(serializers.Field[datetime, int, int, Any]):
    """A Unix time in milliseconds on the wire, a datetime in Python."""

    def to_internal_value(self, data: int) -> datetime:
        try:
            return datetime.fromtimestamp(data / 1000, UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            raise serializers.ValidationError("must be a time in milliseconds") from None

    def to_representation(self, value: datetime) -> int:
        return int(value.timestamp() * 1000)


class EventSerializer(serializers.Serializer[Event]):
    """The article's event. A `ModelSerializer` would work out the same fields anew for each
    request, and ask the database whether the id is taken; the constraint answers that."""

    event_id = serializers.CharField(max_length=200)
    event_type = serializers.CharField(source="type", max_length=200)
    user_id = serializers.CharField(max_length=200, required=False)
    timestamp = Milliseconds(source="occurred_at")
    payload = serializers.JSONField()
    metadata = serializers.JSONField(required=False)

    def create(self, validated_data: dict[str, Any]) -> Event:
        return Event.objects.create(**validated_data)


class BulkSerializer(serializers.ListSerializer[Any]):
    """A list stored by one `bulk_create` instead of a `create()` per item."""

    def create(self, validated_data: list[dict[str, Any]]) -> list[Event]:
        return Event.objects.bulk_create([Event(**fields) for fields in validated_data])


class BulkEventSerializer(EventSerializer):
    """The same item; lists of it are stored at once."""

    class Meta:
        list_serializer_class = BulkSerializer


class EventView(generics.CreateAPIView[Event]):
    """One event, or a list of them by `many=True`."""

    serializer_class: type[EventSerializer] = EventSerializer

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        is_list = isinstance(request.data, list)
        serializer = self.get_serializer(data=request.data, many=is_list)
        serializer.is_valid(raise_exception=True)
        try:
            self._save(serializer, is_list=is_list)
        except IntegrityError:
            return Response({"detail": "known"}, status=status.HTTP_409_CONFLICT)
        return Response(serializer.data, status=status.HTTP_201_CREATED)

    def _save(self, serializer: Any, *, is_list: bool) -> None:
        if not is_list:
            serializer.save(source="api")
            return
        # A commit per item would make the list several times slower.
        with transaction.atomic():
            serializer.save(source="api")


class BulkEventView(EventView):
    """Lists by `bulk_create`."""

    serializer_class = BulkEventSerializer
