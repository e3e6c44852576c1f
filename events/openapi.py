"""What OpenAPI cannot see in the code of this app. drf-spectacular finds it when it is imported."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from events.auth import ApiKeyAuthentication


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells OpenAPI how the key is sent."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
