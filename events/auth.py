"""Who posts: API keys as DRF authentication, scopes as DRF permission."""

import hmac
from datetime import timedelta
from typing import Any

from rest_framework import authentication, exceptions, permissions
from rest_framework.request import Request

from common.clock import now
from events.models import ApiKey

# Writing "last used" on every request would make each key a hot row.
_LAST_USED_STEP = timedelta(minutes=1)


class ApiKeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer emauto_live_…`; `request.auth` is the `ApiKey`."""

    def authenticate(self, request: Request) -> tuple[None, ApiKey] | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = find_key(token.strip())
        if key is None:
            raise exceptions.AuthenticationFailed("Unknown, expired or revoked API key.")
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(permissions.BasePermission):
    """The key carries the view's `required_scope`."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey):
            raise exceptions.NotAuthenticated("Send an API key: Authorization: Bearer <key>.")
        return view.required_scope in request.auth.scopes


def find_key(token: str) -> ApiKey | None:
    """The valid key this token proves, or None. Marks it as used, at most once a minute."""
    parts = ApiKey.split_token(token)
    if parts is None:
        return None
    public, secret_hash = parts
    key = ApiKey.objects.filter(prefix=public).first()
    if key is None or not hmac.compare_digest(bytes(key.secret_hash), secret_hash):
        return None
    moment = now()
    if not key.is_valid_at(moment):
        return None
    if key.last_used_at is None or moment - key.last_used_at > _LAST_USED_STEP:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=moment)
    return key
