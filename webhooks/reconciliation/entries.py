"""From an entry of a list to feedback. It names no mail of ours, so what counts is its address."""

from datetime import datetime

from delivery.bounces import BounceClass
from webhooks.classification import as_bounce
from webhooks.kinds import Feedback
from webhooks.reading import as_address, as_detail


def entry(
    source: str,
    bounce_class: BounceClass,
    *,
    address: object,
    at: datetime,
    words: tuple[object, ...] = (),
    esp_id: str = "",
) -> Feedback:
    """That the address is on this provider's list, and why. One that is none could never be
    mailed and has no effect."""
    kind, _ = as_bounce(bounce_class)
    return Feedback(
        kind=kind,
        at=at,
        source=source,
        esp_id=esp_id,
        address=as_address(address),
        bounce_class=bounce_class,
        detail=as_detail("on the provider's list", *words),
        known_at=at,
    )
