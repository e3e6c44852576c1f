"""Pages that belong to no room."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def api_not_found(request: HttpRequest) -> JsonResponse:
    """Every path below the API that is none of its own, in the API's error shape."""
    body = {"code": "not_found", "message": "There is nothing at this path.", "details": []}
    return JsonResponse(body, status=404)
