"""What a receiving server says in the hand-over itself is acted on like what comes back later."""

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from common.clock import now
from delivery.bounces import RETURNED, BounceClass
from delivery.models import Bounce, Message
from suppression.models import Suppression
from tests.factories import MessageFactory, TopicFactory
from webhooks import answers
from webhooks.answers import apply_answers
from webhooks.services import drain

pytestmark = pytest.mark.django_db


def answered(bounce_class: BounceClass, **fields: object) -> Message:
    message = MessageFactory(**{"state": "failed", "reason": "refused", **fields})
    Bounce.objects.create(message=message, bounce_class=bounce_class, source="smtp")
    return message


@pytest.mark.parametrize("bounce_class", sorted(RETURNED))
def test_only_an_address_that_is_no_good_is_suppressed(bounce_class: BounceClass) -> None:
    message = answered(bounce_class)
    drain(budget=5)
    is_final = bounce_class in ("hard", "owner_changed")
    assert list(Suppression.objects.values_list("scope", "reason")) == (
        [("all", "hard_bounce")] if is_final else []
    )
    # No provider has it: it stays what it was.
    message.refresh_from_db()
    assert (message.state, message.sent_at, message.bounced_at) == ("failed", None, None)
    assert Bounce.objects.get().is_applied


def test_new_owner_ends_the_consent() -> None:
    topic = TopicFactory(key="news")
    message = answered(BounceClass.OWNER_CHANGED, stream="marketing", topic=topic)
    apply_answers()
    assert message.contact.subscriptions.get().state == "withdrawn"


def test_answer_is_applied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BATCH", 2)
    for _ in range(3):
        answered(BounceClass.HARD)
    assert apply_answers()
    assert not apply_answers()
    assert not apply_answers()
    assert Suppression.objects.count() == 3


def test_number_of_queries_does_not_depend_on_the_number_of_answers() -> None:
    def queries_for(number: int) -> int:
        for _ in range(number):
            answered(BounceClass.HARD)
        with CaptureQueriesContext(connection) as queries:
            apply_answers()
        return len(queries)

    assert queries_for(1) == queries_for(50)


@pytest.mark.audited(except_={"I10"}, why="an answer that cannot be applied")
def test_answer_that_cannot_be_applied_keeps_no_other_from_it() -> None:
    """A class that a newer version has written, while both are running."""
    poison = answered(BounceClass.HARD)
    Bounce.objects.filter(message=poison).update(bounce_class="newer_class")
    good = answered(BounceClass.HARD)
    assert not apply_answers()
    assert Suppression.objects.get().email == good.email
    bad = Bounce.objects.get(message=poison)
    assert not bad.is_applied
    assert bad.retry_at is not None
    # It is out of the way, and comes again.
    assert not answers.due_answers().exists()
    Bounce.objects.update(retry_at=now() - timedelta(seconds=1))
    Bounce.objects.filter(message=poison).update(bounce_class="hard")
    apply_answers()
    assert Suppression.objects.count() == 2


def test_end_of_the_database_is_no_answers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(BounceClass.HARD)

    def away(told: object) -> None:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(answers, "apply_feedback", away)
    with pytest.raises(OperationalError):
        apply_answers()
    assert Bounce.objects.get().retry_at is None
