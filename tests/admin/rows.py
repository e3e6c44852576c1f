"""One more row for each list of the admin, everything a stranger controls set to `EVIL`."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from campaigns.models import Enrollment
from common.addresses import address_hash
from common.clock import now
from contacts.models import Consent, Erasure, Subscription
from contacts.states import ConsentState
from delivery.models import (
    Message,
    Quota,
    SandboxMail,
    Sender,
    Switch,
    Warmup,
    WarmupPlan,
    WarmupStage,
)
from delivery.states import MessageState, Reason
from delivery.warmup import limit_name
from events.models import Rejection, SeenType
from events.states import EventState, RefusalCode
from suppression.models import Suppression
from tests.factories import (
    CampaignFactory,
    ContactFactory,
    EventFactory,
    EventTypeFactory,
    MessageFactory,
    ProviderFactory,
    SenderFactory,
    TemplateFactory,
    TopicFactory,
    make_api_key,
)
from webhooks.models import OutgoingDelivery, OutgoingEndpoint, Poll, Receipt
from webhooks.outgoing.services import give_secret

EVIL = "<script>alert('x')</script>"

_numbers = itertools.count(1)


def make_message(**fields: Any) -> Message:
    message = MessageFactory(
        contact=ContactFactory(name=EVIL),
        **{
            "origin_event_id": f"e-{EVIL}",
            "origin_campaign": f"campaign-{next(_numbers)}",
            "origin_step": EVIL,
            "detail": EVIL,
            "context": {"payload": {"note": EVIL}, "user": {"name": EVIL}},
            "state": MessageState.RETRY,
            **fields,
        },
    )
    message.attempt_log.update(detail=EVIL)
    return message


def make_dead_letter() -> Message:
    return make_message(state=MessageState.DEAD, reason=Reason.ATTEMPTS_EXHAUSTED)


def make_contact() -> Any:
    contact = ContactFactory(name=EVIL, attributes={"note": EVIL})
    topic = TopicFactory(name=EVIL)
    said = {"contact": contact, "topic": topic, "state": ConsentState.GRANTED}
    Consent.objects.create(**said, source=EVIL, evidence=EVIL)
    Subscription.objects.create(**said)
    return contact


def make_event() -> Any:
    return EventFactory(
        event_id=f"{next(_numbers)}-{EVIL}",
        type=EVIL,
        user_id=EVIL,
        payload={"note": EVIL},
        state=EventState.DEAD,
        error=EVIL,
        outcome=[{"campaign": "welcome", "result": EVIL}],
        stated_at=now(),
        note=EVIL,
    )


def make_rejection() -> Rejection:
    return Rejection.objects.create(
        source=EVIL,
        event_id=f"{next(_numbers)}-{EVIL}",
        type=EVIL,
        code=RefusalCode.SCHEMA,
        problems=[{"path": EVIL, "message": EVIL}],
        body={"event_type": EVIL, "payload": {EVIL: EVIL}},
        note=EVIL,
    )


def make_event_type() -> Any:
    """With an event that a schema can be suggested from, and a name that nobody registered."""
    number = next(_numbers)
    make_event()
    SeenType.objects.create(source=EVIL, name=f"seen-{number}-{EVIL}")
    marked = {"type": "object", "properties": {EVIL: {"x-pii": True, "x-sensitive": True}}}
    return EventTypeFactory(name=f"{EVIL}-{number}", description=EVIL, schema=marked)


def make_mail() -> SandboxMail:
    raw = f"Subject: {EVIL}\r\nContent-Type: text/plain\r\n\r\n{EVIL}\r\n"
    return SandboxMail.objects.create(
        from_email=EVIL, to_email=EVIL, subject=EVIL, raw=raw.encode()
    )


def make_erasure() -> Erasure:
    return Erasure.objects.create(
        contact=make_contact(), source=EVIL, reason=EVIL, last_error=EVIL, addresses=[EVIL]
    )


def make_suppression() -> Suppression:
    return Suppression.objects.create(
        address_hash=address_hash(f"{next(_numbers)}@example.com"), source=EVIL, evidence=EVIL
    )


def make_receipt() -> Receipt:
    return Receipt.objects.create(
        provider="postmark",
        provider_event_id=f"{next(_numbers)}-{EVIL}",
        body=f'{{"Description": "{EVIL}"}}'.encode(),
        outcome=[{"kind": EVIL, "class": EVIL, "message": None, "effects": [EVIL]}],
        error=EVIL,
    )


def make_endpoint() -> OutgoingEndpoint:
    """Switched off by itself, so that the list has a notice."""
    endpoint = OutgoingEndpoint(
        name=EVIL,
        url=f"https://example.com/{EVIL}",
        types=[EVIL],
        is_active=False,
        disabled_at=now(),
        disabled_why=EVIL,
        previous_until=now(),
    )
    give_secret(endpoint)
    endpoint.save()
    return endpoint


def make_delivery() -> OutgoingDelivery:
    return OutgoingDelivery.objects.create(
        endpoint=make_endpoint(),
        event_id=f"{next(_numbers)}-{EVIL}",
        type=EVIL,
        body=json.dumps({"type": EVIL, "data": {EVIL: EVIL}}),
        answer=EVIL,
        state="dead",
    )


def make_poll() -> Poll:
    return Poll.objects.create(
        provider=ProviderFactory(),
        source="sendgrid",
        list=f"list-{next(_numbers)}",
        last_error=EVIL,
    )


def make_campaign() -> Any:
    return CampaignFactory(
        name=EVIL,
        rule={"condition": {"path": "payload.note", "op": "eq", "value": EVIL}},
        topic=TopicFactory(),
        sender=make_sender(),
    )


def make_enrollment() -> Enrollment:
    campaign = make_campaign()
    return Enrollment.objects.create(
        campaign=campaign,
        contact=ContactFactory(name=EVIL),
        entry_key=EVIL,
        event_id=EVIL,
        event_at=now(),
        revision=campaign.published,
        error=EVIL,
        step_key="mail",
        wake_at=now(),
    )


def make_template() -> Any:
    return TemplateFactory(name=EVIL, version__subject=EVIL, version__html=EVIL)


def make_sender() -> Sender:
    return SenderFactory(name=EVIL)


def make_switch() -> Switch:
    return Switch.objects.create(target="provider", key=f"p-{next(_numbers)}", note=EVIL)


def make_warmup() -> Warmup:
    number = next(_numbers)
    plan = WarmupPlan.objects.create(key=f"w-{number}", name=EVIL, days=[10, 20])
    warmup = Warmup.objects.create(
        provider=ProviderFactory(), domain=f"d{number}.example.com", plan=plan
    )
    WarmupStage.objects.create(
        warmup=warmup, mailboxes="gmail", judged_on=now().date(), note=EVIL[:200]
    )
    name = f"{limit_name(warmup.provider_id, warmup.domain, 'gmail')}:day"
    Quota.objects.create(name=name, starts_at=now(), most=10, used=7)
    return warmup


LISTS: dict[str, Callable[[], Any]] = {
    "campaigns_campaign": make_campaign,
    "campaigns_enrollment": make_enrollment,
    "content_template": make_template,
    "content_templateversion": lambda: make_template().published,
    "contacts_topic": lambda: TopicFactory(key=f"topic-{next(_numbers)}", name=EVIL),
    "contacts_contact": make_contact,
    "contacts_erasure": make_erasure,
    "delivery_message": make_message,
    "delivery_deadletter": make_dead_letter,
    "delivery_sandboxmail": make_mail,
    "suppression_suppression": make_suppression,
    "events_event": make_event,
    "events_rejection": make_rejection,
    "events_eventtype": make_event_type,
    "events_apikey": lambda: make_api_key(name=EVIL)[0],
    "webhooks_poll": make_poll,
    "webhooks_receipt": make_receipt,
    "webhooks_outgoingendpoint": make_endpoint,
    "webhooks_outgoingdelivery": make_delivery,
    "delivery_provider": lambda: ProviderFactory(key=f"provider-{next(_numbers)}"),
    "delivery_sender": make_sender,
    "delivery_switch": make_switch,
    "delivery_warmup": make_warmup,
    "delivery_warmupplan": lambda: make_warmup().plan,
}
