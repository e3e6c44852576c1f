"""What a recipient's browser brings along is left at the door."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

_PAGES = re.compile(r"/(?:[upcdv]|t/[co])/[^/]*\Z")
_NOT_TAKEN = ("HTTP_COOKIE", "HTTP_X_FORWARDED_HOST", "HTTP_REFERER", "HTTP_ORIGIN")


def recipient_pages(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: on the pages behind a mail's links there are no cookies, and any host will do.

    The token is the permission, and nothing on a page is built from the request's host. The link
    in an old mail may well name a domain the shop has given up since, and has to work.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        if _PAGES.match(request.path_info):
            for name in _NOT_TAKEN:
                request.META.pop(name, None)
            request.META["HTTP_HOST"] = urlsplit(settings.PUBLIC_URL).netloc
        return get_response(request)

    return respond
