"""The soft limit: addresses at which nothing arrives any more."""

from datetime import datetime, timedelta
from itertools import permutations
from random import Random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.addresses import address_hash
from common.clock import now
from delivery.bounces import BounceClass
from delivery.models import Message
from suppression.models import Suppression
from suppression.services import suppressed_scopes
from suppression.states import SuppressionReason
from tests.factories import ContactFactory, MessageFactory
from webhooks.feedback import Feedback, FeedbackKind, apply_feedback

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def mail_to(email: str, *, days_ago: float) -> Message:
    contact = ContactFactory._meta.model.objects.filter(email=email).first() or ContactFactory(
        email=email
    )
    sent_at = now() - days_ago * DAY
    message: Message = MessageFactory(contact=contact, state="sent", sent_at=sent_at)
    return message


def soft(message: Message, *, after: timedelta = timedelta(minutes=5)) -> Feedback:
    assert isinstance(message.sent_at, datetime)
    return Feedback(
        kind=FeedbackKind.BOUNCED,
        at=message.sent_at + after,
        source="postmark",
        message_uuid=message.pk,
        bounce_class=BounceClass.SOFT,
        detail="452 4.2.2 mailbox full",
    )


def delivered(message: Message) -> Feedback:
    assert isinstance(message.sent_at, datetime)
    at = message.sent_at + timedelta(minutes=5)
    return Feedback(FeedbackKind.DELIVERED, at, "postmark", message_uuid=message.pk)


def limits() -> set[tuple[str, str]]:
    return set(Suppression.objects.values_list("scope", "reason"))


LIMITED = {("marketing", "soft_limit")}


def test_five_mails_in_a_row_over_two_weeks_are_enough() -> None:
    mails = [mail_to("ada@example.com", days_ago=days) for days in (16, 12, 8, 4)]
    apply_feedback([soft(mail) for mail in mails])
    assert limits() == set()
    last = mail_to("ada@example.com", days_ago=1)
    apply_feedback([soft(last)])
    assert limits() == LIMITED
    row = Suppression.objects.get()
    assert row.expires_at == soft(last).at + 90 * DAY
    assert row.email == "ada@example.com"
    assert "5 mails" in row.evidence


@pytest.mark.parametrize("days", [(5, 4, 3, 2, 1), (13, 12, 8, 4, 1)])
def test_five_mails_in_less_than_two_weeks_are_not(days: tuple[int, ...]) -> None:
    apply_feedback([soft(mail_to("ada@example.com", days_ago=day)) for day in days])
    assert limits() == set()


def test_one_mail_put_off_again_and_again_counts_once() -> None:
    mail = mail_to("ada@example.com", days_ago=20)
    apply_feedback([soft(mail, after=n * 3 * DAY) for n in range(6)])
    assert limits() == set()


@pytest.mark.parametrize("seed", range(6))
def test_mail_that_arrived_in_between_begins_anew_in_any_order(seed: int) -> None:
    told = [soft(mail_to("ada@example.com", days_ago=day)) for day in (30, 26, 22, 10, 5, 1)]
    told.append(delivered(mail_to("ada@example.com", days_ago=15)))
    Random(seed).shuffle(told)
    for piece in told:
        apply_feedback([piece])
    assert limits() == set()


def test_any_order_of_five_ends_limited() -> None:
    for number, order in enumerate(list(permutations((20, 15, 10, 5, 1)))[::5]):
        for day in order:
            apply_feedback([soft(mail_to(f"ada{number}@example.com", days_ago=day))])
    assert Suppression.objects.filter(reason="soft_limit").count() == 24


def test_mail_told_late_to_have_arrived_lifts_the_limit() -> None:
    mails = [mail_to("ada@example.com", days_ago=day) for day in (20, 15, 10, 5, 1)]
    apply_feedback([soft(mail) for mail in mails])
    assert limits() == LIMITED
    apply_feedback([delivered(mail_to("ada@example.com", days_ago=12))])
    assert limits() == set()


def test_mail_of_which_nothing_came_back_for_days_arrived() -> None:
    mails = [mail_to("ada@example.com", days_ago=day) for day in (20, 15, 10, 5, 1)]
    mail_to("ada@example.com", days_ago=7)
    apply_feedback([soft(mail) for mail in mails])
    assert limits() == set()


def test_mail_that_was_put_off_and_then_taken_does_not_count() -> None:
    """A server that greylists: its answer came before the hand-over that it took."""
    mails = [mail_to("ada@example.com", days_ago=day) for day in (20, 15, 10, 5, 1)]
    apply_feedback([soft(mail, after=-timedelta(minutes=10)) for mail in mails])
    assert limits() == set()


@pytest.mark.parametrize("bounce_class", [BounceClass.BLOCK, BounceClass.THROTTLE])
def test_what_is_our_own_fault_limits_nobody(bounce_class: BounceClass) -> None:
    for day in (20, 15, 10, 5, 1):
        told = soft(mail_to("ada@example.com", days_ago=day))
        apply_feedback(
            [Feedback(told.kind, told.at, "ses", told.message_uuid, bounce_class=bounce_class)]
        )
    assert limits() == set()


def test_limit_ends_by_itself_and_is_set_again_by_the_next_bounce() -> None:
    mails = [mail_to("ada@example.com", days_ago=day) for day in (120, 115, 110, 105, 100)]
    apply_feedback([soft(mail) for mail in mails])
    assert limits() == set()  # over already
    digest = address_hash("ada@example.com")
    apply_feedback([soft(mail_to("ada@example.com", days_ago=1))])
    assert suppressed_scopes([digest]) == {digest: {"marketing"}}
    Suppression.objects.update(expires_at=now() - timedelta(seconds=1))
    assert suppressed_scopes([digest]) == {}


@pytest.mark.parametrize(
    "reason", [r for r in SuppressionReason if r != SuppressionReason.SOFT_LIMIT]
)
def test_no_reason_that_stays_is_replaced_by_one_that_passes(reason: SuppressionReason) -> None:
    Suppression.objects.create(
        address_hash=address_hash("ada@example.com"), scope="marketing", reason=reason
    )
    apply_feedback([soft(mail_to("ada@example.com", days_ago=d)) for d in (20, 15, 10, 5, 1)])
    apply_feedback([delivered(mail_to("ada@example.com", days_ago=2))])
    row = Suppression.objects.get()
    assert (row.reason, row.expires_at) == (reason, None)


def test_stronger_reason_makes_the_limit_stay() -> None:
    mails = [mail_to("ada@example.com", days_ago=day) for day in (20, 15, 10, 5, 1)]
    apply_feedback([soft(mail) for mail in mails])
    apply_feedback([Feedback(FeedbackKind.UNSUBSCRIBED, now(), "page", message_uuid=mails[0].pk)])
    row = Suppression.objects.get()
    assert (row.reason, row.expires_at) == ("unsubscribe", None)


def test_number_of_queries_does_not_depend_on_the_number_of_addresses() -> None:
    def told(people: int) -> list[Feedback]:
        return [
            soft(mail_to(f"p{people}-{n}@example.com", days_ago=day))
            for n in range(people)
            for day in (20, 15, 10, 5, 1)
        ]

    counts = []
    for people in (1, 50):
        pieces = told(people)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            apply_feedback(pieces)
        counts.append(len(queries))
    assert Suppression.objects.count() == 51
    assert counts[0] == counts[1]
