"""What each fixture means, and what becomes of it when a field says something else."""

from typing import Any

from delivery.bounces import BounceClass, classify_reply

Meaning = tuple[str, str | None]

DELIVERED, DEFERRED, OPENED, CLICKED, OTHER = (
    (kind, None) for kind in ("delivered", "deferred", "opened", "clicked", "other")
)
ACCEPTED = ("accepted", None)
REJECTED = ("rejected", "content")
HARD, SOFT, BLOCK, CONTENT, AUTO_REPLY, THROTTLE = (
    ("bounced", name) for name in ("hard", "soft", "block", "content", "auto_reply", "throttle")
)
COMPLAINT = ("complained", "complaint")
UNSUBSCRIBE = ("unsubscribed", "unsubscribe")


def by_reply(text: str, code: str = "", *, temporary: bool = False) -> Meaning:
    """Left to what the receiver's server said."""
    told = classify_reply(text, code=code)
    lasting = temporary and told in (BounceClass.HARD, BounceClass.OWNER_CHANGED)
    return "bounced", "soft" if lasting else told.value


FIXTURES: dict[str, dict[str, Meaning]] = {
    "ses": {
        "notification_bounce": HARD,
        "notification_complaint": COMPLAINT,
        "notification_delivery": DELIVERED,
        "event_bounce": HARD,
        "event_complaint": COMPLAINT,
        "event_delivery": DELIVERED,
        "event_delivery_delay": DEFERRED,
        "event_send": ACCEPTED,
        "event_reject": REJECTED,
        "event_rendering_failure": REJECTED,
        "event_open": OPENED,
        "event_click": CLICKED,
        "event_subscription": UNSUBSCRIBE,
    },
    "sendgrid": {
        "processed": ACCEPTED,
        "delivered": DELIVERED,
        "deferred": DEFERRED,
        "bounce": HARD,
        "blocked": BLOCK,
        "dropped": HARD,
        "open": OPENED,
        "click": CLICKED,
        "spamreport": COMPLAINT,
        "unsubscribe": UNSUBSCRIBE,
        "group_unsubscribe": UNSUBSCRIBE,
        "group_resubscribe": OTHER,
    },
    "mailgun": {
        "accepted": ACCEPTED,
        "delivered": DELIVERED,
        "failed_permanent": HARD,
        "failed_temporary": DEFERRED,
        "rejected": REJECTED,
        "complained": COMPLAINT,
        "unsubscribed": UNSUBSCRIBE,
        "opened": OPENED,
        "clicked": CLICKED,
    },
    "brevo": {
        "request": ACCEPTED,
        "delivered": DELIVERED,
        "deferred": DEFERRED,
        "hard_bounce": HARD,
        "soft_bounce": by_reply(
            "452 4.2.2 The email account that you tried to reach is over quota", temporary=True
        ),
        "invalid_email": HARD,
        "blocked": BLOCK,
        "error": REJECTED,
        "spam": COMPLAINT,
        "unsubscribed": UNSUBSCRIBE,
        "opened": OPENED,
        "unique_opened": OPENED,
        "proxy_open": OPENED,
        "unique_proxy_open": OPENED,
        "click": CLICKED,
    },
    "resend": {
        "sent": ACCEPTED,
        "scheduled": OTHER,
        "delivered": DELIVERED,
        "delivery_delayed": DEFERRED,
        "bounced": HARD,
        "complained": COMPLAINT,
        "suppressed": HARD,
        "failed": REJECTED,
        "opened": OPENED,
        "clicked": CLICKED,
        "contact_updated": OTHER,
    },
    "mailersend": {
        "sent": ACCEPTED,
        "delivered": DELIVERED,
        "deferred": DEFERRED,
        "hard_bounced": HARD,
        "soft_bounced": by_reply("452 4.2.2 The mailbox is full", temporary=True),
        "opened": OPENED,
        "clicked": CLICKED,
        "unsubscribed": UNSUBSCRIBE,
        "spam_complaint": COMPLAINT,
    },
    "mailjet": {
        "sent": DELIVERED,
        "open": OPENED,
        "click": CLICKED,
        "bounce": HARD,
        "greylisted": DEFERRED,
        "blocked": HARD,
        "spam": COMPLAINT,
        "unsub": UNSUBSCRIBE,
    },
    "sparkpost": {
        "injection": ACCEPTED,
        "delivery": DELIVERED,
        "delay": DEFERRED,
        "bounce": HARD,
        "out_of_band": SOFT,
        "policy_rejection": BLOCK,
        "spam_complaint": COMPLAINT,
        "generation_failure": REJECTED,
        "generation_rejection": BLOCK,
        "open": OPENED,
        "initial_open": OPENED,
        "click": CLICKED,
        "list_unsubscribe": UNSUBSCRIBE,
        "link_unsubscribe": UNSUBSCRIBE,
    },
    "postal": {
        "message_sent": DELIVERED,
        "message_delayed": DEFERRED,
        "message_delivery_failed": by_reply(
            "550 5.1.1 The email account that you tried to reach does not exist."
        ),
        "message_held": OTHER,
        "message_held_suppressed": HARD,
        "message_bounced": by_reply("Delivery Error"),
        "message_loaded": OPENED,
        "message_link_clicked": CLICKED,
        "domain_dns_error": OTHER,
        "incoming_failed": OTHER,
    },
}

ESP_IDS = {
    "ses": "0102019ab0000001-5f1c7c1e-6d3a-4d8e-9a51-0c8d6f2b1e77-000000",
    "sendgrid": "5f8d0b9e-4a4e-4a0b-9c3b-2f6f6f2f9a11",
    "brevo": "<202611201001.31415926535@smtp-relay.example.net>",
    "resend": "4ef9a417-02e9-4d39-ad75-9611e0fcc33c",
    "mailersend": "62fb66bef54a112e920b5493",
    "mailjet": "1152921527843156123",
    "sparkpost": "65832150921904138",
    "postal": "12345",
}


def _ses(kind: str, subtype: str, **more: Any) -> dict[str, Any]:
    return {"bounce.bounceType": kind, "bounce.bounceSubType": subtype, **more}


_OUT_OF_OFFICE = {"bounce.bouncedRecipients": [{"emailAddress": "ada@example.com"}]}
_DSN = "bounce.bouncedRecipients.0.diagnosticCode"
_REPLY = "550 5.1.1 user unknown"

# provider, fixture, changes, what that means
VARIANTS: list[tuple[str, str, dict[str, Any], Meaning]] = [
    ("ses", "event_bounce", _ses("Permanent", "NoEmail"), HARD),
    ("ses", "event_bounce", _ses("Permanent", "Suppressed"), HARD),
    ("ses", "event_bounce", _ses("Permanent", "OnAccountSuppressionList"), HARD),
    ("ses", "event_bounce", _ses("Permanent", "UnsubscribedRecipient"), UNSUBSCRIBE),
    ("ses", "event_bounce", _ses("Transient", "MailboxFull"), SOFT),
    ("ses", "event_bounce", _ses("Transient", "CustomTimeoutExceeded"), SOFT),
    ("ses", "event_bounce", _ses("Transient", "General", **_OUT_OF_OFFICE), AUTO_REPLY),
    ("ses", "event_bounce", _ses("Transient", "General", **{_DSN: "smtp; 451 try later"}), SOFT),
    ("ses", "event_bounce", _ses("Transient", "General"), SOFT),
    ("ses", "event_bounce", _ses("Transient", "MessageTooLarge"), CONTENT),
    ("ses", "event_bounce", _ses("Transient", "ContentRejected"), CONTENT),
    ("ses", "event_bounce", _ses("Transient", "AttachmentRejected"), CONTENT),
    ("ses", "event_bounce", _ses("Undetermined", "Undetermined"), SOFT),
    ("ses", "event_bounce", _ses("Tomorrow", "New"), SOFT),
    ("ses", "event_complaint", {"complaint.complaintFeedbackType": None}, COMPLAINT),
    ("ses", "event_complaint", {"complaint.complaintFeedbackType": "fraud"}, COMPLAINT),
    ("ses", "event_complaint", {"complaint.complaintFeedbackType": "other"}, COMPLAINT),
    ("ses", "event_complaint", {"complaint.complaintFeedbackType": "not-spam"}, OTHER),
    (
        *("ses", "event_complaint", {"complaint.complaintFeedbackType": "auth-failure"}),
        ("other", "auth"),
    ),
    ("ses", "event_complaint", {"complaint.complaintFeedbackType": "virus"}, ("other", "content")),
    (
        *("ses", "event_complaint", {"complaint.complaintSubType": "OnAccountSuppressionList"}),
        COMPLAINT,
    ),
    (
        "ses",
        "event_subscription",
        {"subscription.newTopicPreferences.unsubscribeAll": False},
        OTHER,
    ),
    ("ses", "event_open", {"eventType": "Tomorrow"}, OTHER),
    ("sendgrid", "bounce", {"bounce_classification": "Technical Failure"}, SOFT),
    ("sendgrid", "bounce", {"bounce_classification": "Content"}, CONTENT),
    ("sendgrid", "bounce", {"bounce_classification": "Frequency or Volume Too High"}, THROTTLE),
    ("sendgrid", "bounce", {"bounce_classification": "Mailbox Unavailable"}, SOFT),
    (
        *("sendgrid", "bounce", {"bounce_classification": "Unclassified", "reason": _REPLY}),
        by_reply(_REPLY, "5.1.1"),
    ),
    ("sendgrid", "blocked", {"bounce_classification": "Invalid Address"}, BLOCK),
    ("sendgrid", "blocked", {"bounce_classification": None}, BLOCK),
    ("sendgrid", "dropped", {"reason": "Spam Reporting Address"}, COMPLAINT),
    ("sendgrid", "dropped", {"reason": "Unsubscribed Address"}, UNSUBSCRIBE),
    ("sendgrid", "dropped", {"reason": "Invalid"}, HARD),
    ("sendgrid", "dropped", {"reason": "Spam Content"}, CONTENT),
    ("sendgrid", "dropped", {"reason": "Tomorrow"}, by_reply("Tomorrow")),
    ("sendgrid", "open", {"event": "tomorrow"}, OTHER),
    ("mailgun", "failed_permanent", {"event-data.reason": "suppress-bounce"}, HARD),
    ("mailgun", "failed_permanent", {"event-data.reason": "suppress-complaint"}, COMPLAINT),
    ("mailgun", "failed_permanent", {"event-data.reason": "suppress-unsubscribe"}, UNSUBSCRIBE),
    ("mailgun", "failed_permanent", {"event-data.reason": "espblock"}, BLOCK),
    ("mailgun", "failed_permanent", {"event-data.reason": "old"}, SOFT),
    (
        *("mailgun", "failed_permanent", {"event-data.reason": "generic"}),
        by_reply("5.1.1 The email account that you tried to reach does not exist.", "5.1.1"),
    ),
    ("mailgun", "opened", {"event-data.event": "tomorrow"}, OTHER),
    ("brevo", "blocked", {"reason": "blocked : due to unsubscribed user"}, UNSUBSCRIBE),
    ("brevo", "blocked", {"reason": "due to a spam complaint"}, COMPLAINT),
    ("brevo", "blocked", {"reason": "due to an earlier Hard Bounce"}, HARD),
    ("brevo", "blocked", {"reason": None}, BLOCK),
    ("brevo", "soft_bounce", {"reason": _REPLY}, by_reply(_REPLY, temporary=True)),
    ("brevo", "spam", {"event": "complaint"}, COMPLAINT),
    ("brevo", "unsubscribed", {"event": "unsubscribe"}, UNSUBSCRIBE),
    ("brevo", "opened", {"event": "list_addition"}, OTHER),
    ("resend", "bounced", {"data.bounce.type": "Transient"}, SOFT),
    ("resend", "bounced", {"data.bounce.subType": "Suppressed"}, HARD),
    (
        *("resend", "bounced", {"data.bounce": {"message": "It was refused."}}),
        by_reply("It was refused."),
    ),
    ("resend", "bounced", {"data.bounce": None}, by_reply("")),
    ("resend", "opened", {"type": "email.tomorrow"}, OTHER),
    ("mailersend", "soft_bounced", {"data.morph": None}, by_reply("", temporary=True)),
    ("mailersend", "opened", {"data.type": "opened_unique"}, OPENED),
    ("mailersend", "clicked", {"data.type": "clicked_unique"}, CLICKED),
    ("mailersend", "opened", {"data.type": None}, OPENED),
    ("mailersend", "sent", {"data.type": "suppressed"}, BLOCK),
    ("mailersend", "opened", {"data.type": "survey_opened"}, OTHER),
    ("mailjet", "bounce", {"hard_bounce": False}, SOFT),
    ("mailjet", "bounce", {"error": "quota exceeded", "hard_bounce": False}, SOFT),
    ("mailjet", "bounce", {"error": "relay/access denied"}, BLOCK),
    ("mailjet", "bounce", {"error": "tomorrow", "comment": _REPLY}, by_reply(_REPLY)),
    ("mailjet", "greylisted", {"hard_bounce": True}, SOFT),
    ("mailjet", "blocked", {"error": "preblocked"}, BLOCK),
    ("mailjet", "blocked", {"error": "spam reporter"}, COMPLAINT),
    ("mailjet", "blocked", {"error": "duplicate in campaign"}, CONTENT),
    ("mailjet", "open", {"event": "tomorrow"}, OTHER),
    ("sparkpost", "open", {"msys.track_event.type": "tomorrow"}, OTHER),
    ("postal", "message_sent", {"event": "MessageTomorrow"}, OTHER),
    *[
        ("sparkpost", "bounce", {"msys.message_event.bounce_class": code}, meaning)
        for code, meaning in {
            "1": by_reply("550 5.1.1 <ada@example.com>: user unknown", "550"),
            "10": HARD,
            "20": by_reply("550 5.1.1 <ada@example.com>: user unknown", "550"),
            "21": SOFT,
            "22": SOFT,
            "23": CONTENT,
            "24": SOFT,
            "25": BLOCK,
            "30": HARD,
            "40": by_reply("550 5.1.1 <ada@example.com>: user unknown", "550"),
            "50": BLOCK,
            "51": BLOCK,
            "52": BLOCK,
            "53": CONTENT,
            "54": BLOCK,
            "60": AUTO_REPLY,
            "70": by_reply("550 5.1.1 <ada@example.com>: user unknown", "550"),
            "80": AUTO_REPLY,
            "90": UNSUBSCRIBE,
            "100": AUTO_REPLY,
        }.items()
    ],
]
