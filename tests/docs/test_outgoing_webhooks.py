"""The receiver of docs/outgoing-webhooks.md, run as it stands there, and told news."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from delivery.bounces import BounceClass
from emailauto.embedded.server import free_port
from tests.factories import MessageFactory, TopicFactory
from tests.webhooks.outgoing.rows import make_endpoint, make_news
from webhooks.feedback import apply_feedback
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.models import OutgoingDelivery, OutgoingEndpoint
from webhooks.outgoing.fanout import queue_deliveries
from webhooks.outgoing.secrets import decrypt
from webhooks.outgoing.sending import drain_deliveries
from webhooks.outgoing.services import replay_deliveries, rotate_secret
from webhooks.outgoing.verdicts import LONGEST_PAUSE, SCHEDULE

pytestmark = pytest.mark.django_db

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "outgoing-webhooks.md").read_text("utf-8")


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the receiver of the page does not listen")


def test_receiver_of_the_page_verifies_remembers_and_refuses(settings: Any) -> None:
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    port = free_port()
    endpoint = make_endpoint(url=f"http://127.0.0.1:{port}/hook")
    environment = {
        **os.environ,
        "WEBHOOK_SIGNING_SECRET": decrypt(endpoint.secret),
        "PORT": str(port),
    }
    receiver = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(port)
        news = make_news(type="email.complained")
        queue_deliveries([news])
        drain_deliveries(budget=5)
        assert replay_deliveries(OutgoingDelivery.objects.values_list("pk", flat=True)) == 1
        drain_deliveries(budget=5)
        delivery = OutgoingDelivery.objects.get()
        assert (delivery.state, delivery.status) == ("delivered", 204)
        rotate_secret(endpoint.pk)
        OutgoingEndpoint.objects.update(previous_until=None)
        queue_deliveries([make_news()])
        drain_deliveries(budget=5)
        assert OutgoingDelivery.objects.get(state="pending").status == 401
    finally:
        receiver.terminate()
        printed, _ = receiver.communicate(timeout=60)
    assert printed == f"email.complained {news.message.contact.user_id}\n"


def test_page_tells_the_schedule_as_it_is() -> None:
    hours = [delay // 3600 for delay in SCHEDULE[3:]]
    told = f"5 s, 5 min, 30 min, {', '.join(map(str, hours[:-1]))} and {hours[-1]} h"
    assert SCHEDULE[:3] == (5, 300, 1800)
    assert told in PAGE
    assert LONGEST_PAUSE == 3600


def test_example_of_the_page_is_what_a_bounce_sends() -> None:
    make_endpoint()
    message = MessageFactory(
        state="sent",
        contact__user_id="u-1",
        origin_campaign="welcome",
        origin_step="mail",
        origin_event_id="e-1",
        topic=TopicFactory(key="news"),
    )
    at = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)
    told = {"source": "postmark", "message_uuid": message.pk, "at": at}
    apply_feedback(
        [
            Feedback(kind=FeedbackKind.BOUNCED, bounce_class=BounceClass.HARD, **told),
            Feedback(kind=FeedbackKind.COMPLAINED, **told),
            Feedback(kind=FeedbackKind.UNSUBSCRIBED, **told),
        ]
    )
    ident, example = re.findall(r"^webhook-id: (\S+)$.*?^(\{.*?\})\n```$", PAGE, re.M | re.S)[0]
    shown = json.loads(example)
    sent = OutgoingDelivery.objects.get(type="email.bounced")
    body = json.loads(sent.body)
    assert list(body) == list(shown)
    assert body["timestamp"] == shown["timestamp"]
    assert list(body["data"].items()) == list(
        (shown["data"] | {"message_id": str(message.pk), "stream": message.stream}).items()
    )
    assert sent.event_id == ident.replace(shown["data"]["message_id"], str(message.pk))
    for other in OutgoingDelivery.objects.exclude(pk=sent.pk):
        added = {"class", "is_permanent"}
        assert set(json.loads(other.body)["data"]) == set(body["data"]) - added
    assert OutgoingDelivery.objects.count() == 3
