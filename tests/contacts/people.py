"""Somebody of whom every table knows something, and looking for their traces."""

from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from campaigns import engine
from contacts.ledger import record_tracking
from contacts.models import Contact
from contacts.services import record_consent
from contacts.states import ConsentState
from delivery.engine import deliver_batch
from delivery.models import Bounce, Message, SandboxMail
from events.models import IdempotentReply, Rejection
from events.services import submit
from tests.factories import CampaignFactory, SenderFactory, TopicFactory, event_in
from webhooks.models import Receipt

CANARY = "kanarienvogel"
ADDRESS = f"{CANARY}+shop@example.com"
USER = f"user-{CANARY}"


def process() -> None:
    while engine.drain(budget=10):
        pass
    for stream in ("marketing", "transactional"):
        while deliver_batch(stream, limit=50):
            pass


@pytest.fixture
def contact() -> Contact:
    """Somebody of whom every table knows something."""
    SenderFactory(is_default=True)
    campaign = CampaignFactory(rule={"entry_key_path": "payload.cart"})
    payload = {"email": ADDRESS.upper().replace("EXAMPLE.COM", "example.com"), "name": CANARY}
    submit(
        [
            event_in(
                f"e-{ADDRESS}",
                user_id=USER,
                payload={**payload, "cart": CANARY},
                metadata={"source": "tests", "note": ADDRESS},
            ),
            event_in(
                "e-other", user_id="else", payload={"email": "else@example.com", "friend": ADDRESS}
            ),
        ]
    )
    process()
    contact = Contact.objects.get(user_id=USER)
    topic = TopicFactory()
    record_consent(contact, topic, ConsentState.GRANTED, source="form", evidence=f"by {ADDRESS}")
    record_tracking([contact], ConsentState.GRANTED, source="form", evidence=CANARY)
    Contact.objects.filter(pk=contact.pk).update(attributes={"nick": CANARY}, name=CANARY)
    message = Message.objects.get(contact=contact)
    assert message.origin_campaign == campaign.key
    message.attempt_log.update(detail=f"250 {ADDRESS}", request=CANARY)
    Bounce.objects.create(
        message=message, bounce_class="mailbox_full", detail=f"<{ADDRESS}>", source="postmark"
    )
    SandboxMail.objects.create(from_email="s@example.com", to_email=ADDRESS, raw=CANARY.encode())
    for number, body in enumerate((ADDRESS, ADDRESS.replace("@", "%40").replace("+", "%2B"))):
        Receipt.objects.create(
            provider="mailgun",
            provider_event_id=str(number),
            body=f"recipient={body}&name={CANARY}".encode(),
            state="applied",
        )
    Rejection.objects.create(
        source="api", event_id="r", code="schema", body={"payload": {"to": ADDRESS, "n": CANARY}}
    )
    IdempotentReply.objects.create(
        source="api", key=ADDRESS, body_hash=b"x", status=202, body=CANARY.encode()
    )
    LogEntry.objects.create(
        user=_admin(),
        content_type=ContentType.objects.get_for_model(Contact),
        object_id=str(contact.pk),
        object_repr=CANARY,
        action_flag=CHANGE,
        change_message=ADDRESS,
    )
    contact.refresh_from_db()
    return contact


def _admin() -> Any:
    return User.objects.create(username="admin")


def tables_with(word: str) -> dict[str, int]:
    """The tables in which a row has the word in any column, as text or as bytes."""
    found = {}
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            columns = [
                f"encode({c}, 'escape')" if kind == "bytea" else f"{c}::text"
                for c, kind in _columns(cursor, table)
            ]
            cursor.execute(
                f"SELECT count(*) FROM {table} WHERE concat_ws(' ', {', '.join(columns)}) ~* %s",
                [word],
            )
            if count := cursor.fetchone()[0]:
                found[table] = count
    return found


def _columns(cursor: Any, table: str) -> list[tuple[str, str]]:
    cursor.execute(
        "SELECT quote_ident(column_name), data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = %s",
        [table],
    )
    return list(cursor.fetchall())
