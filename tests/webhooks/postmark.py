"""Postmark's calls, from the fixtures, about a message of ours."""

import base64
import json
from pathlib import Path
from typing import Any

from django.http import HttpResponse
from django.test import Client

from delivery.models import Message

FIXTURES = Path(__file__).parent / "fixtures" / "postmark"


def payload(name: str, message: Message | None = None, **fields: Any) -> dict[str, Any]:
    """A fixture, about this message if one is given, with these fields replaced."""
    document = json.loads((FIXTURES / f"{name}.json").read_text())
    if message is not None:
        document["Metadata"] = {"message_uuid": str(message.pk)}
    return {**document, **fields}


def call(
    document: Any, *, auth: str = "hook:secret", path: str = "/webhooks/postmark/"
) -> HttpResponse:
    """POST it as Postmark would."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    credentials = base64.b64encode(auth.encode()).decode()
    return Client().post(
        path,
        data=body,
        content_type="application/json",
        headers={"Authorization": f"Basic {credentials}"},
    )
