"""What is no longer kept, and secrets under a new key."""

from datetime import timedelta
from typing import Any

import pytest

from common.clock import now
from tests.webhooks.outgoing.rows import make_delivery, make_endpoint
from webhooks.models import OutgoingDelivery, OutgoingEndpoint
from webhooks.outgoing import retention
from webhooks.outgoing.retention import purge_deliveries, renew_secrets
from webhooks.outgoing.secrets import decrypt
from webhooks.outgoing.services import rotate_secret
from webhooks.tasks import tidy_outgoing

pytestmark = pytest.mark.django_db


def test_what_was_settled_a_month_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 2)
    endpoint = make_endpoint()
    old, young = now() - timedelta(days=31), now() - timedelta(days=29)
    for state in ("delivered", "withheld"):
        for _ in range(3):
            make_delivery(endpoint, state=state, settled_at=old)
    kept = [
        make_delivery(endpoint, state="delivered", settled_at=young),
        make_delivery(endpoint, state="dead", settled_at=old),
        make_delivery(endpoint, state="pending"),
    ]
    assert purge_deliveries() == 6
    assert set(OutgoingDelivery.objects.values_list("pk", flat=True)) == {row.pk for row in kept}
    assert purge_deliveries() == 0


def test_secrets_are_renewed_under_the_present_key(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "first", []
    endpoint = make_endpoint()
    first = decrypt(endpoint.secret)
    second = rotate_secret(endpoint.pk)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["first"]
    assert renew_secrets() == 1
    assert renew_secrets() == 0
    settings.SECRET_KEY_FALLBACKS = []
    endpoint.refresh_from_db()
    assert (decrypt(endpoint.secret), decrypt(endpoint.previous_secret)) == (second, first)


def test_secret_that_is_lost_does_not_stop_the_others(settings: Any) -> None:
    settings.SECRET_KEY = "zeroth"
    make_endpoint()
    settings.SECRET_KEY = "first"
    make_endpoint()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["first"]
    assert renew_secrets() == 1


def test_secret_whose_time_is_over_is_forgotten() -> None:
    endpoint = make_endpoint()
    rotate_secret(endpoint.pk)
    tidy_outgoing()
    assert OutgoingEndpoint.objects.get().previous_secret
    OutgoingEndpoint.objects.update(previous_until=now() - timedelta(seconds=1))
    tidy_outgoing()
    assert OutgoingEndpoint.objects.get().previous_secret == ""
