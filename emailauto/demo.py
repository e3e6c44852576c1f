"""The demo: three campaigns a shop would run. Loading it twice changes nothing, and never
touches what somebody has edited since."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from campaigns.models import Campaign, Rule, Step
from campaigns.services import publish_campaign
from campaigns.states import EXIT, DelayUnit, StepKind
from contacts.models import Topic
from contacts.states import TopicPolicy
from content.models import Template
from content.services import load_templates
from delivery.models import Provider, Sender
from delivery.states import Stream
from events.models import ApiKey, EventType, Scope

SIGNED_UP = "UserSignedUp"
ORDER_COMPLETED = "OrderCompleted"
CART_UPDATED = "CartUpdated"
EVENT_TYPES = (SIGNED_UP, ORDER_COMPLETED, CART_UPDATED)
CART_PATH = "payload.cart_id"

# Long enough to see somebody wait, short enough to see the mail. A shop would say an hour.
CART_WAIT_SECONDS = 30


def load_demo() -> None:
    """Make the demo's event types, topics, sender, templates and campaigns where they are
    missing, and publish the campaigns that were made."""
    types = {name: EventType.objects.get_or_create(name=name)[0] for name in EVENT_TYPES}
    sender = _sender()
    load_templates(settings.BASE_DIR / settings.EMAILAUTO.templates.base_dir)
    templates = {template.key: template for template in Template.objects.all()}
    _campaign(
        {"key": "welcome", "name": "Welcome", "topic": _topic("news", "News and offers")},
        sender,
        Rule(event_type=types[SIGNED_UP]),
        [Step(key="welcome", kind=StepKind.SEND_EMAIL, template=templates["welcome"])],
    )
    _campaign(
        {"key": "receipt", "name": "Receipt", "stream": Stream.TRANSACTIONAL},
        sender,
        Rule(event_type=types[ORDER_COMPLETED]),
        [Step(key="receipt", kind=StepKind.SEND_EMAIL, template=templates["receipt"])],
    )
    _campaign(
        {"key": "abandoned-cart", "name": "Abandoned cart", "topic": _topic("carts", "Your cart")},
        sender,
        Rule(event_type=types[CART_UPDATED], entry_key_path=CART_PATH),
        [
            Step(
                key="ordered",
                kind=StepKind.WAIT_FOR_EVENT,
                event_type=types[ORDER_COMPLETED],
                match_path=CART_PATH,
                wait_amount=CART_WAIT_SECONDS,
                wait_unit=DelayUnit.SECONDS,
                on_event=EXIT,
            ),
            Step(key="reminder", kind=StepKind.SEND_EMAIL, template=templates["abandoned_cart"]),
        ],
    )


def ensure_login(username: str, password: str) -> None:
    """A superuser of this name with this password."""
    user, _ = User.objects.get_or_create(
        username=username, defaults={"is_staff": True, "is_superuser": True}
    )
    if not user.check_password(password):
        user.set_password(password)
        user.save(update_fields=["password"])


def ensure_api_key(token: str) -> None:
    """A key that proves itself with this token and may post events and read messages."""
    key = ApiKey(name="Demo", scopes=[Scope.EVENTS_WRITE, Scope.MESSAGES_READ])
    key.set_token(token)
    if not ApiKey.objects.filter(prefix=key.prefix).exists():
        key.save()


def _sender() -> Sender:
    provider, _ = Provider.objects.get_or_create(key="default")
    sender = Sender.objects.filter(is_default=True).first()
    return sender or Sender.objects.create(
        name="Lighthouse Goods",
        email=settings.DEFAULT_FROM_EMAIL,
        postal_address="Lighthouse Goods, 1 Harbour Road, Port Example",
        provider=provider,
        is_default=True,
    )


def _topic(key: str, name: str) -> Topic:
    # Soft opt-in: the demo's people gave their address to the shop they buy from.
    defaults = {"name": name, "policy": TopicPolicy.OPT_OUT}
    return Topic.objects.get_or_create(key=key, defaults=defaults)[0]


@transaction.atomic
def _campaign(defaults: dict[str, Any], sender: Sender, rule: Rule, steps: list[Step]) -> None:
    key = defaults["key"]
    campaign, created = Campaign.objects.get_or_create(
        key=key, defaults={**defaults, "sender": sender}
    )
    if not created:
        return
    rule.campaign = campaign
    rule.save()
    for position, step in enumerate(steps, start=1):
        step.campaign, step.position = campaign, position
        step.save()
    publish_campaign(campaign, by=None)
