"""Judging visits: one that cannot be judged keeps no other from it."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from common.clock import now
from delivery.models import Message, Visit
from tests.factories import MessageFactory
from webhooks import visits
from webhooks.actors import judge
from webhooks.visits import judge_visits

pytestmark = pytest.mark.django_db

PERSON = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def visited(user_agent: str = PERSON) -> Message:
    message: Message = MessageFactory(
        state="sent", handed_over_at=Now() - timedelta(hours=1), contact__may_track=True
    )
    Visit.objects.create(
        message=message, fingerprint=b"1", client=b"1", user_agent=user_agent, due_at=Now()
    )
    return message


@pytest.mark.audited(except_={"I10"}, why="a visit that cannot be judged")
def test_visit_that_cannot_be_judged_is_put_off_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    poison, good = visited("poison"), visited()

    def judge_or_fail(seen: Any, *more: Any) -> Any:
        if seen.user_agent == "poison":
            raise ValueError("nobody has thought of this")
        return judge(seen, *more)

    with monkeypatch.context() as broken:
        broken.setattr(visits, "judge", judge_or_fail)
        assert not judge_visits()
    good.refresh_from_db()
    assert good.opened_at is not None
    waiting = Visit.objects.get(message=poison)
    assert waiting.actor == ""
    assert waiting.due_at > now()
    Visit.objects.update(due_at=now())
    judge_visits()
    waiting.refresh_from_db()
    assert waiting.actor != ""
