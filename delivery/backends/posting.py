"""Whether a mail's request was on its way when something went wrong: before that nothing can have
been taken, from then on it may have."""

from typing import Any

from django.core.mail import EmailMessage


class Posting:
    """Mixed into backends of Anymail's."""

    has_posted = False

    def build_message_payload(self, message: EmailMessage, defaults: Any) -> Any:
        """As Anymail's."""
        self.has_posted = False
        return super().build_message_payload(message, defaults)  # type: ignore[misc]

    def post_to_esp(self, payload: Any, message: EmailMessage) -> Any:
        """As Anymail's."""
        self.has_posted = True
        return super().post_to_esp(payload, message)  # type: ignore[misc]
