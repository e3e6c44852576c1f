"""Anymail reads the same payloads: whom they are about, which mail, and what it calls the event.

Two readers who were not written by the same people have to agree, or our fixtures are not what
providers send. Where Anymail is known to say less, the table says so.
"""

from typing import Any

import pytest
from anymail.signals import EventType
from anymail.webhooks.amazon_ses import AmazonSESTrackingWebhookView
from anymail.webhooks.brevo import BrevoTrackingWebhookView
from anymail.webhooks.mailersend import MailerSendTrackingWebhookView
from anymail.webhooks.mailgun import MailgunTrackingWebhookView
from anymail.webhooks.mailjet import MailjetTrackingWebhookView
from anymail.webhooks.postal import PostalTrackingWebhookView
from anymail.webhooks.postmark import PostmarkTrackingWebhookView
from anymail.webhooks.resend import ResendTrackingWebhookView
from anymail.webhooks.sendgrid import SendGridTrackingWebhookView
from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView
from django.test import RequestFactory

from tests.webhooks.cases import FIXTURES
from tests.webhooks.fixtures import fixture, names
from tests.webhooks.signing import body_of
from tests.webhooks.test_providers import RECEIVED
from webhooks.feedback import FeedbackKind
from webhooks.providers import ADAPTERS
from webhooks.reading import as_address

AUTH = {"webhook_secret": ["not:asked"]}
VIEWS = {
    "brevo": (BrevoTrackingWebhookView, AUTH),
    "mailersend": (MailerSendTrackingWebhookView, {"signing_secret": "x"}),
    "mailgun": (MailgunTrackingWebhookView, {"webhook_signing_key": "x"}),
    "mailjet": (MailjetTrackingWebhookView, AUTH),
    "postal": (PostalTrackingWebhookView, {"webhook_key": "x"}),
    "postmark": (PostmarkTrackingWebhookView, AUTH),
    "resend": (ResendTrackingWebhookView, AUTH),
    "sendgrid": (SendGridTrackingWebhookView, AUTH),
    "ses": (AmazonSESTrackingWebhookView, AUTH),
    "sparkpost": (SparkPostTrackingWebhookView, {**AUTH, "track_initial_open_as_opened": True}),
}
KINDS = {
    EventType.DELIVERED: {FeedbackKind.DELIVERED},
    EventType.OPENED: {FeedbackKind.OPENED},
    EventType.CLICKED: {FeedbackKind.CLICKED},
    EventType.COMPLAINED: {FeedbackKind.COMPLAINED},
    EventType.UNSUBSCRIBED: {FeedbackKind.UNSUBSCRIBED},
    EventType.DEFERRED: {FeedbackKind.DEFERRED},
    EventType.BOUNCED: {FeedbackKind.BOUNCED},
    EventType.REJECTED: {FeedbackKind.BOUNCED, FeedbackKind.REJECTED},
    EventType.FAILED: {FeedbackKind.BOUNCED, FeedbackKind.REJECTED},
    EventType.SENT: {FeedbackKind.ACCEPTED},
    EventType.QUEUED: {FeedbackKind.ACCEPTED, FeedbackKind.OTHER},
    EventType.SUBSCRIBED: {FeedbackKind.OTHER},
}
# Anymail does not know them, or knows no difference.
UNKNOWN_TO_ANYMAIL = {
    ("brevo", "proxy_open"),
    ("brevo", "unique_proxy_open"),
    ("brevo", "unsubscribed"),
    ("mailersend", "deferred"),
    ("postal", "message_held_suppressed"),
    ("postal", "message_loaded"),
    ("postmark", "bounce_SpamNotification"),  # the receiver's filter, which it calls a complaint
    ("resend", "failed"),
    ("resend", "suppressed"),
    ("ses", "event_delivery_delay"),
    ("ses", "event_subscription"),
}
# It ignores mail that came in, and stumbles over what is about no mail.
UNREAD = {("postal", "incoming_failed"), ("resend", "contact_updated")}

ALL = [
    (provider, name)
    for provider in VIEWS
    for name in (FIXTURES.get(provider) or names(provider))
    if (provider, name) not in UNREAD
]


@pytest.mark.parametrize(("provider", "name"), ALL)
def test_anymail_reads_the_same(provider: str, name: str) -> None:
    view, options = VIEWS[provider]
    body = body_of(provider, fixture(provider, name))
    request = RequestFactory().post("/", data=body, content_type="application/json")
    (theirs,) = view(**options).parse_events(request)
    (event,) = ADAPTERS[provider].events({"Svix-Id": "msg_1"}, body)
    (ours,) = ADAPTERS[provider].parse(event.body, RECEIVED)
    assert ours.address == as_address(theirs.recipient)
    assert ours.esp_id == str(theirs.message_id or "")
    told = (theirs.metadata or {}).get("message_uuid")
    assert told in (None, str(ours.message_uuid))
    _assert_same_kind(provider, name, ours.kind, theirs.event_type)


def _assert_same_kind(provider: str, name: str, ours: FeedbackKind, theirs: Any) -> None:
    if (provider, name) in UNKNOWN_TO_ANYMAIL:
        assert ours not in KINDS.get(theirs, set())
    elif theirs in KINDS and not name.startswith(("bounce_", "subscription_change_")):
        assert ours in KINDS[theirs]
