"""What people do with endpoints and deliveries."""

from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now

from common.bell import ring
from common.clock import now
from common.ids import uuid7
from webhooks.models import OutgoingDelivery, OutgoingEndpoint
from webhooks.outgoing.payloads import TEST_TYPE, document
from webhooks.outgoing.secrets import encrypt, new_secret
from webhooks.outgoing.transitions import switch_off
from webhooks.states import OutgoingState

BOTH_SECRETS_FOR = timedelta(hours=24)
BY_HAND = "Switched off by hand."

_REPLAYABLE = (OutgoingState.DEAD, OutgoingState.DELIVERED)


def give_secret(endpoint: OutgoingEndpoint) -> str:
    """Give an endpoint that is about to be stored its first secret; returns it in clear, once."""
    secret = new_secret()
    endpoint.secret = encrypt(secret)
    return secret


def rotate_secret(endpoint_id: int) -> str:
    """Replace the secret and return the new one in clear, once. For a day everything is signed
    with both."""
    secret = new_secret()
    with transaction.atomic():
        endpoint = OutgoingEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)
        endpoint.previous_secret = endpoint.secret
        endpoint.previous_until = now() + BOTH_SECRETS_FOR
        endpoint.secret = encrypt(secret)
        endpoint.save(update_fields=["secret", "previous_secret", "previous_until"])
    return secret


def drop_previous_secret(endpoint_id: int) -> bool:
    """Sign with the present secret only from now on; False if that was so."""
    signing_with_both = OutgoingEndpoint.objects.filter(
        pk=endpoint_id, previous_until__isnull=False
    )
    return bool(signing_with_both.update(previous_secret="", previous_until=None))


def enable_endpoints(ids: Iterable[int]) -> int:
    """Switch endpoints on; returns how many were off. What waited for them is due at once."""
    switched = OutgoingEndpoint.objects.filter(pk__in=list(ids), is_active=False).update(
        is_active=True,
        disabled_at=None,
        disabled_why="",
        failures=0,
        failing_since=None,
        resume_at=None,
    )
    if switched:
        ring("outgoing")
    return switched


def disable_endpoints(ids: Iterable[int]) -> int:
    """Switch endpoints off; returns how many were on. What is queued for them waits."""
    return switch_off(ids, BY_HAND)


def send_test(endpoint_id: int) -> OutgoingDelivery:
    """Queue an event of type `webhook.test` for the endpoint."""
    event_id = f"test_{uuid7().hex}"
    delivery = OutgoingDelivery.objects.create(
        endpoint_id=endpoint_id,
        event_id=event_id,
        type=TEST_TYPE,
        body=document(TEST_TYPE, now(), {"message": "It works."}),
    )
    ring("outgoing")
    return delivery


def replay_deliveries(ids: Iterable[int]) -> int:
    """Give dead and delivered deliveries another ten attempts, under the ids they had; returns how
    many. Idempotent."""
    revived = OutgoingDelivery.objects.filter(pk__in=list(ids), state__in=_REPLAYABLE).update(
        state=OutgoingState.PENDING, attempts=0, due_at=Now(), settled_at=None
    )
    if revived:
        ring("outgoing")
    return revived
