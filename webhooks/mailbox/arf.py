"""Complaints in the Abuse Reporting Format (RFC 5965), as feedback loops send them."""

from delivery.bounces import BounceClass
from webhooks.classification import Meaning, as_bounce
from webhooks.kinds import FeedbackKind
from webhooks.mailbox.mime import Mail, read_headers, value
from webhooks.mailbox.told import Told
from webhooks.reading import as_detail

_TYPE = "message/feedback-report"

_COMPLAINT = as_bounce(BounceClass.COMPLAINT)
_UNSUBSCRIBE = as_bounce(BounceClass.UNSUBSCRIBE)
_MEANINGS: dict[str, Meaning] = {
    "abuse": _COMPLAINT,
    "fraud": _COMPLAINT,
    "other": _COMPLAINT,
    "opt-out": _UNSUBSCRIBE,
    "opt-out-list": _UNSUBSCRIBE,
    "not-spam": (FeedbackKind.OTHER, None),
    "auth-failure": (FeedbackKind.OTHER, BounceClass.AUTH),
    "virus": (FeedbackKind.OTHER, BounceClass.CONTENT),
}


def read_arf(mail: Mail) -> Told | None:
    """What it reports, or None when it is no such report. A type that was invented since says
    nothing about anybody."""
    report = next(iter(mail.of_type(_TYPE)), None)
    if report is None:
        return None
    fields = read_headers(report.text)
    kind = value(fields, "feedback-type").lower()
    agent = value(fields, "user-agent")
    return Told(*_MEANINGS.get(kind, (FeedbackKind.OTHER, None)), as_detail(kind, agent))
