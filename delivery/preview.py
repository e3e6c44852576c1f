"""A message as its recipient saw it."""

from content.rendering import RenderedEmail, RenderError
from delivery.models import Message
from delivery.outbound import render_message
from delivery.senders import load_senders

__all__ = ["RenderError", "as_sent"]


def as_sent(message: Message) -> RenderedEmail:
    """The message rendered again from its pinned version and stored context; raises
    `RenderError`."""
    return render_message(message, load_senders([message]).of(message))
