"""What the breaker counts: rolled up or not, it is the same."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import DateTimeField, F, Func
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from delivery.models import Message, Pardon, Quota, Tally
from delivery.tallies import counted, roll_up
from tests.delivery.test_reputation import sent
from tests.factories import ProviderFactory

pytestmark = pytest.mark.django_db


class DateBin(Func):
    """The beginning of a moment's ten minutes."""

    template = "date_bin('10 minutes', %(expressions)s, 'epoch')"
    output_field = DateTimeField()


def made(minutes: int, count: int = 3, **fields: object) -> None:
    """Mail that went out so many minutes ago."""
    messages = sent(count, "c", **fields)
    Message.objects.filter(pk__in=[m.pk for m in messages]).update(
        sent_at=Now() - timedelta(minutes=minutes)
    )


def test_rolling_up_changes_no_count() -> None:
    provider = ProviderFactory(key="esp")
    for minutes in (0, 5, 15, 45, 90, 60 * 20, 60 * 30, 60 * 24 * 6, 60 * 24 * 9):
        made(minutes, provider=provider)
    made(30, provider=provider, mailboxes="gmail")
    before = counted()
    assert before["campaign", "c"]["c", "yahoo"].sent_day == 18
    assert before["campaign", "c"]["c", "yahoo"].heard_week == 24
    assert before["campaign", "c"]["c", "gmail"].heard_week == 0
    assert roll_up() > 0
    assert counted() == before
    assert roll_up() == 0
    assert sum(Tally.objects.values_list("sent", flat=True)) >= 18


def test_only_what_is_over_is_rolled_up() -> None:
    made(0, provider=ProviderFactory(key="esp"))
    assert roll_up() == 0


def test_mail_that_is_sent_after_a_roll_up_is_counted_too() -> None:
    provider = ProviderFactory(key="esp")
    made(30, provider=provider)
    roll_up()
    made(0, provider=provider)
    assert counted()["provider", "esp"]["c", "yahoo"].sent_hour == 6


def test_old_tallies_and_quotas_go() -> None:
    provider = ProviderFactory(key="esp")
    made(30, provider=provider)
    roll_up()
    Tally.objects.update(starts_at=F("starts_at") - timedelta(days=9))
    Quota.objects.create(name="a", most=1, starts_at=Now() - timedelta(days=41))
    Quota.objects.create(name="b", most=1, starts_at=Now() - timedelta(days=39))
    assert roll_up() == 1
    assert Tally.objects.count() == 1
    assert Quota.objects.get().name == "b"


def test_one_query_whatever_the_number() -> None:
    for n in range(12):
        sent(1, f"c{n}", sending_domain=f"{n}.example.com")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        scopes = counted()
    assert len(queries) == 1
    assert sum(target != "provider" for target, _ in scopes) == 12 * 4


def test_ten_minutes_with_a_pardon_count_from_the_pardon_on() -> None:
    provider = ProviderFactory(key="esp")
    start = DateBin(Now() - timedelta(minutes=40))
    for minute, count in ((1, 3), (6, 4)):
        messages = sent(count, "c", provider=provider)
        Message.objects.filter(pk__in=[m.pk for m in messages]).update(
            sent_at=start + timedelta(minutes=minute)
        )
    roll_up()
    assert counted()["campaign", "c"]["c", "yahoo"].sent_hour == 7
    pardon = Pardon.objects.create(target="campaign", key="c", at=Now())
    Pardon.objects.filter(pk=pardon.pk).update(at=start + timedelta(minutes=4))
    assert counted()["campaign", "c"]["c", "yahoo"].sent_hour == 4
    # Elsewhere nothing was pardoned.
    assert counted()["provider", "esp"]["c", "yahoo"].sent_hour == 7
