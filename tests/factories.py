"""Rows for tests, each valid on its own and as small as it can be."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import factory
from django.db.models.functions import Now
from factory.django import DjangoModelFactory

from campaigns.models import Campaign, Rule, Step
from campaigns.services import publish_campaign
from campaigns.states import StepKind
from common.addresses import parse_address
from common.clock import now, to_milliseconds
from common.ids import uuid7
from contacts.models import Contact, Topic
from contacts.states import TopicPolicy
from content.models import Template, TemplateVersion
from delivery.models import Attempt, Message, Provider, Sender
from delivery.statements import MAX_CRASHES
from delivery.states import MessageState, Reason, Stream
from delivery.verdicts import Outcome
from events.models import ApiKey, Event, EventType, Scope
from events.native import parse_event
from events.states import EventState, IgnoredReason
from events.wire import EventIn


class EventTypeFactory(DjangoModelFactory[EventType]):
    class Meta:
        model = EventType
        django_get_or_create = ("name",)

    name = "UserSignedUp"


class EventFactory(DjangoModelFactory[Event]):
    class Meta:
        model = Event

    event_id = factory.Sequence(lambda n: f"event-{n}")
    type = "UserSignedUp"
    user_id = factory.Sequence(lambda n: f"user-{n}")
    occurred_at = factory.LazyFunction(lambda: datetime.now(UTC))
    payload = factory.LazyAttribute(lambda o: {"email": f"{o.user_id}@example.com", "name": "Ada"})
    body_hash = factory.LazyAttribute(lambda o: hashlib.sha256(o.event_id.encode()).digest())
    state = EventState.PENDING
    reason = factory.LazyAttribute(
        lambda o: IgnoredReason.NO_CAMPAIGN if o.state == EventState.IGNORED else ""
    )
    error = factory.LazyAttribute(lambda o: "Traceback" if o.state == EventState.DEAD else "")


class ContactFactory(DjangoModelFactory[Contact]):
    class Meta:
        model = Contact

    user_id = factory.Sequence(lambda n: f"known-{n}")
    email = factory.Sequence(lambda n: f"known-{n}@example.com")
    email_normalized = factory.LazyAttribute(
        lambda o: parse_address(o.email).normalized if o.email else None
    )
    name = "Ada"


class TopicFactory(DjangoModelFactory[Topic]):
    class Meta:
        model = Topic
        django_get_or_create = ("key",)

    key = "news"
    name = "News"
    policy = TopicPolicy.OPT_OUT


class TemplateFactory(DjangoModelFactory[Template]):
    """A template with one published version."""

    class Meta:
        model = Template
        skip_postgeneration_save = True

    key = factory.Sequence(lambda n: f"template-{n}")
    name = "Template"

    @factory.post_generation
    def version(self, create: bool, extracted: Any, **wording: Any) -> None:
        fields = {
            "subject": "Hello {{ user.name }}",
            "html": "<h1>Hello {{ user.name }}</h1>",
            **wording,
        }
        self.published = TemplateVersion.objects.create(
            template=self, number=1, published_at=now(), **fields
        )
        self.save()


class ProviderFactory(DjangoModelFactory[Provider]):
    class Meta:
        model = Provider
        django_get_or_create = ("key",)

    key = "sandbox"
    backend = Provider.Backend.SANDBOX


class SenderFactory(DjangoModelFactory[Sender]):
    class Meta:
        model = Sender

    name = "Shop"
    email = "shop@example.com"
    postal_address = "1 Harbour Road"
    provider = factory.SubFactory(ProviderFactory)


_REASONS = {
    MessageState.UNKNOWN: Reason.OUTCOME_UNKNOWN,
    MessageState.FAILED: Reason.REFUSED,
    MessageState.DEAD: Reason.ATTEMPTS_EXHAUSTED,
    MessageState.SKIPPED: Reason.SUPPRESSED,
    MessageState.HELD: Reason.KILL_SWITCH,
}
_VERDICTS = {
    MessageState.SENT: Outcome.ACCEPTED,
    MessageState.UNKNOWN: Outcome.UNKNOWN,
    MessageState.FAILED: Outcome.PERMANENT,
}
_LEASED = (MessageState.CLAIMED, MessageState.DISPATCHING)


_HANDED_OVER = {
    *(MessageState.DISPATCHING, MessageState.SENT, MessageState.UNKNOWN, MessageState.RETRY),
    *(Reason.REFUSED, Reason.ATTEMPTS_EXHAUSTED),
}


class MessageFactory(DjangoModelFactory[Message]):
    """A queued transactional message to a fresh contact, through the sandbox.

    In another state it has what brought it there: a lease, a reason, a hand-over and its attempt.
    """

    class Meta:
        model = Message
        skip_postgeneration_save = True

    dedupe_key = factory.Sequence(lambda n: f"message-{n}")
    contact = factory.SubFactory(ContactFactory)
    email = factory.SelfAttribute("contact.email")
    email_normalized = factory.LazyAttribute(lambda o: o.contact.email_normalized or "")
    stream = Stream.TRANSACTIONAL
    template_version = factory.LazyFunction(lambda: TemplateFactory().published)
    sender = factory.SubFactory(SenderFactory)
    context = factory.LazyAttribute(
        lambda o: {
            "payload": {},
            "user": {"id": o.contact.user_id or "", "name": o.contact.name, "email": o.email},
        }
    )
    due_at = Now()
    state = MessageState.QUEUED
    reason = factory.LazyAttribute(lambda o: _REASONS.get(o.state, ""))
    attempts = factory.LazyAttribute(
        lambda o: int(not _HANDED_OVER.isdisjoint((o.state, o.reason)))
    )
    crashes = factory.LazyAttribute(lambda o: MAX_CRASHES if o.reason == Reason.CRASHED else 0)
    handed_over_at = factory.LazyAttribute(lambda o: Now() if o.attempts else None)
    handover_id = factory.LazyAttribute(lambda o: uuid7() if o.attempts else None)
    provider = factory.LazyAttribute(
        lambda o: (o.sender.provider if o.sender else ProviderFactory()) if o.attempts else None
    )
    lease_owner = factory.LazyAttribute(lambda o: "worker" if o.state in _LEASED else "")
    lease_until = factory.LazyAttribute(
        lambda o: Now() + timedelta(minutes=1) if o.state in _LEASED else None
    )
    sent_at = factory.LazyAttribute(lambda o: Now() if o.state == MessageState.SENT else None)

    @factory.post_generation
    def attempt(self, create: bool, extracted: Any, **_: Any) -> None:
        if self.provider is not None and self.state != MessageState.DISPATCHING:
            verdict = _VERDICTS.get(self.state, Outcome.RETRY)
            Attempt.objects.create(
                message=self, number=self.attempts, provider=self.provider, verdict=verdict
            )


class CampaignFactory(DjangoModelFactory[Campaign]):
    """A live campaign that sends one mail on `UserSignedUp`.

    `steps=[{…}, …]` replaces the steps, `rule={…}` adds to the rule, `publish=False` leaves a
    draft.
    """

    class Meta:
        model = Campaign
        skip_postgeneration_save = True

    key = factory.Sequence(lambda n: f"campaign-{n}")
    name = "Campaign"
    stream = Stream.MARKETING
    topic = factory.SubFactory(TopicFactory)
    sender = factory.SubFactory(SenderFactory)
    publish = True

    @classmethod
    def _create(cls, model_class: type[Campaign], *args: Any, **kwargs: Any) -> Campaign:
        steps = kwargs.pop("steps", None)
        rule = kwargs.pop("rule", {})
        publish = kwargs.pop("publish", True)
        campaign: Campaign = super()._create(model_class, *args, **kwargs)
        Rule.objects.create(campaign=campaign, **{"event_type": EventTypeFactory(), **rule})
        default = [{"key": "mail", "kind": StepKind.SEND_EMAIL}]
        for position, step in enumerate(default if steps is None else steps, start=1):
            if step["kind"] == StepKind.SEND_EMAIL:
                step = {"template": TemplateFactory(), **step}
            Step.objects.create(campaign=campaign, position=position, **step)
        if publish:
            publish_campaign(campaign, by=None)
        return campaign


def make_api_key(**fields: Any) -> tuple[ApiKey, str]:
    """A stored key and the token that proves it."""
    token = ApiKey.new_token()
    scopes = [Scope.EVENTS_WRITE, Scope.MESSAGES_READ]
    key = ApiKey(**{"name": "Test", "scopes": scopes, **fields})
    key.set_token(token)
    key.save()
    return key, token


def event_document(event_id: str, **fields: Any) -> dict[str, Any]:
    """A well-formed event as it is posted."""
    return {
        "event_id": event_id,
        "event_type": "UserSignedUp",
        "user_id": f"user-{event_id}",
        "timestamp": to_milliseconds(now()),
        "payload": {"email": f"{event_id}@example.com", "name": "Ada"},
        "metadata": {"source": "tests", "region": "eu-west-1"},
        **fields,
    }


def event_in(event_id: str, *, source: str = "api", **fields: Any) -> EventIn:
    """The same, parsed."""
    document = event_document(event_id, **fields)
    parsed = parse_event(document, source=source, received_at=now())
    assert isinstance(parsed, EventIn), parsed
    return parsed
