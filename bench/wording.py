"""`python -m bench.wording`: the newest mail of the database, as others would be given it, as JSON:
`subject`, `text`, `html`, `headers`, `from_email`."""

import os
import sys
from typing import Any

import django
import msgspec


def newest() -> dict[str, Any]:
    """Rendered, with every header that ours has."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()
    from delivery.headers import headers_of
    from delivery.models import Message
    from delivery.outbound import render_message

    message = Message.objects.select_related("template_version", "sender", "topic").latest("pk")
    sender = message.sender
    assert sender is not None  # of the demo
    rendered = render_message(message, sender)
    return {
        "subject": rendered.subject,
        "text": rendered.text,
        "html": rendered.html,
        "headers": headers_of(message, sender),
        "from_email": f"{sender.name} <{sender.email}>",
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(newest()))
