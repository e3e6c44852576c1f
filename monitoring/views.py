"""`/healthz` and `/readyz`, for whoever restarts processes and routes traffic; `/metrics`, for
Prometheus."""

from typing import Any

import redis
from django.db import Error, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from common.valkey import redis_client
from events.models import Scope
from monitoring.metrics import exposition
from monitoring.services import SWEEP, check_database, idle_seconds, is_migrated


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Alive: `200` as long as this process answers. A database that is away is no reason to
    restart it. `worker_idle_seconds` growing past a few sweeps means no worker makes progress."""
    answer: dict[str, Any] = {"status": "ok", "worker_idle_seconds": None}
    try:
        answer["worker_idle_seconds"] = idle_seconds(SWEEP)
    except (OperationalError, InterfaceError):
        answer["database"] = "unreachable"
    except Error as error:
        answer["database"] = type(error).__name__
    return JsonResponse(answer)


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Ready for traffic: the database answers and its schema is this code's, else `503`.

    Without Redis the status is `degraded`, still `200`: events are accepted all the same.
    """
    answer = {"status": "ok", "database": "ok", "migrations": "ok", "redis": "ok"}
    try:
        check_database()
        if not is_migrated():
            answer |= {"status": "unready", "migrations": "unapplied"}
    except Error:
        answer |= {"status": "unready", "database": "unreachable", "migrations": "unknown"}
    try:
        redis_client().ping()
    except redis.RedisError:
        answer["redis"] = "unreachable"
        if answer["status"] == "ok":
            answer["status"] = "degraded"
    return JsonResponse(answer, status=503 if answer["status"] == "unready" else 200)


class _OneFormat(BaseContentNegotiation):
    """Prometheus asks for its own formats; an error is JSON all the same."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


@method_decorator(never_cache, name="dispatch")
@extend_schema(exclude=True)
class MetricsView(APIView):
    """`/metrics` for a key with `metrics:read`, sent as `Authorization: Bearer …`."""

    required_scope = Scope.METRICS_READ
    content_negotiation_class = _OneFormat

    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(exposition(), content_type=CONTENT_TYPE_PLAIN_0_0_4)
