"""What is no longer kept of outgoing webhooks, and secrets that a new `SECRET_KEY` has to hold.
Both stop in the middle without harm, and go on where they stopped."""

import logging

from django.db import connection
from django.db.models.functions import Now

from webhooks.models import OutgoingEndpoint
from webhooks.outgoing.secrets import SecretLost, renew

logger = logging.getLogger(__name__)

KEPT_DAYS = 30
_CHUNK = 5_000

# Dead ones stay until somebody decides.
_PURGE = """
    DELETE FROM webhooks_outgoingdelivery WHERE id IN (
        SELECT id FROM webhooks_outgoingdelivery
        WHERE state IN ('delivered', 'withheld')
              AND settled_at < statement_timestamp() - %s * interval '1 day'
        ORDER BY settled_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""


def purge_deliveries(*, most: int = 1_000_000) -> int:
    """Delete what was settled more than 30 days ago; returns how many, at most about `most`."""
    gone = 0
    while gone < most:
        with connection.cursor() as cursor:
            cursor.execute(_PURGE, [KEPT_DAYS, _CHUNK])
            count = cursor.rowcount
        gone += count
        if count < _CHUNK:
            break
    return gone


def renew_secrets() -> int:
    """Encrypt under the present `SECRET_KEY` what is under a fallback, and forget secrets whose
    time is over; returns how many endpoints had the former. After it has run the fallback is not
    needed here any more."""
    OutgoingEndpoint.objects.filter(previous_until__lt=Now()).update(
        previous_secret="", previous_until=None
    )
    return sum(_renewed(endpoint) for endpoint in OutgoingEndpoint.objects.all())


def _renewed(endpoint: OutgoingEndpoint) -> bool:
    old = endpoint.secret, endpoint.previous_secret
    try:
        secret, previous = (renew(token) if token else "" for token in old)
    except SecretLost:
        logger.warning("outgoing secret cannot be read", extra={"endpoint": endpoint.pk})
        return False
    if (secret, previous) == old:
        return False
    # Unless somebody has rotated it in the meantime.
    unchanged = OutgoingEndpoint.objects.filter(pk=endpoint.pk, secret=old[0])
    return bool(unchanged.update(secret=secret, previous_secret=previous))
