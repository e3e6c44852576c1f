"""Pages that belong to no room."""

import threading
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

# What makes the document finds its parts as it goes, and two at once find half of them.
_one_at_a_time = threading.Lock()


class SchemaView(SpectacularAPIView):
    """The OpenAPI document."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with _one_at_a_time:
            # drf-spectacular has types, but not on its views.
            response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response


@csrf_exempt
def api_not_found(request: HttpRequest) -> JsonResponse:
    """Every path below the API that is none of its own, in the API's error shape."""
    body = {"code": "not_found", "message": "There is nothing at this path.", "details": []}
    return JsonResponse(body, status=404)
