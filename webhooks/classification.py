"""What a provider's own words for a bounce mean to us, as data.

The raw type decides, never a library's normalised one: Anymail calls a Postmark `SoftBounce`
"bounced" and a `SpamNotification` (the receiver's filter) "complained", and suppressing on that
would throw away good addresses.
"""

import re
from collections.abc import Mapping

from delivery.bounces import BounceClass, classify_reply
from webhooks.kinds import FeedbackKind

Meaning = tuple[FeedbackKind, BounceClass | None]

POSTMARK: Mapping[str, BounceClass] = {
    "HardBounce": BounceClass.HARD,
    "BadEmailAddress": BounceClass.HARD,
    "ManuallyDeactivated": BounceClass.HARD,
    "AddressChange": BounceClass.HARD,
    "SoftBounce": BounceClass.SOFT,
    "Transient": BounceClass.SOFT,
    "DnsError": BounceClass.SOFT,
    "Unknown": BounceClass.SOFT,
    "Unconfirmed": BounceClass.SOFT,
    "OpenRelayTest": BounceClass.SOFT,
    "InboundError": BounceClass.SOFT,
    "AutoResponder": BounceClass.AUTO_REPLY,
    "ChallengeVerification": BounceClass.AUTO_REPLY,
    # A request to subscribe. It is no proof of consent and lifts nothing.
    "Subscribe": BounceClass.AUTO_REPLY,
    "Blocked": BounceClass.BLOCK,
    "SpamNotification": BounceClass.BLOCK,
    "DMARCPolicy": BounceClass.AUTH,
    "VirusNotification": BounceClass.CONTENT,
    "TemplateRenderingFailed": BounceClass.CONTENT,
    "SMTPApiError": BounceClass.CONTENT,
    "SpamComplaint": BounceClass.COMPLAINT,
    "Unsubscribe": BounceClass.UNSUBSCRIBE,
}

# Resend hands on what SES tells it.
SES: Mapping[str, BounceClass] = {
    "Permanent/General": BounceClass.HARD,
    "Permanent/NoEmail": BounceClass.HARD,
    "Permanent/Suppressed": BounceClass.HARD,
    "Permanent/OnAccountSuppressionList": BounceClass.HARD,
    "Permanent/UnsubscribedRecipient": BounceClass.UNSUBSCRIBE,
    "Transient/General": BounceClass.SOFT,
    "Transient/MailboxFull": BounceClass.SOFT,
    "Transient/CustomTimeoutExceeded": BounceClass.SOFT,
    "Transient/MessageTooLarge": BounceClass.CONTENT,
    "Transient/ContentRejected": BounceClass.CONTENT,
    "Transient/AttachmentRejected": BounceClass.CONTENT,
    "Undetermined/Undetermined": BounceClass.SOFT,
}

# https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event: a bounce's
# `bounce_classification`. "Unclassified" is left to the reply.
SENDGRID_BOUNCES: Mapping[str, BounceClass] = {
    "invalid address": BounceClass.HARD,
    "technical": BounceClass.SOFT,
    "technical failure": BounceClass.SOFT,
    "content": BounceClass.CONTENT,
    "reputation": BounceClass.BLOCK,
    "frequency or volume too high": BounceClass.THROTTLE,
    "frequency/volume too high": BounceClass.THROTTLE,
    "mailbox unavailable": BounceClass.SOFT,
}

# Why SendGrid did not even try.
SENDGRID_DROPS: Mapping[str, BounceClass] = {
    "bounced address": BounceClass.HARD,
    "invalid": BounceClass.HARD,
    "spam reporting address": BounceClass.COMPLAINT,
    "unsubscribed address": BounceClass.UNSUBSCRIBE,
    "invalid smtpapi header": BounceClass.CONTENT,
    "spam content": BounceClass.CONTENT,
    "spam content (if spam checker app enabled)": BounceClass.CONTENT,
    "recipient list over package quota": BounceClass.CONTENT,
}

# Reasons of a permanent failure; "generic" and new ones are left to the reply.
MAILGUN: Mapping[str, BounceClass] = {
    "bounce": BounceClass.HARD,
    "suppress-bounce": BounceClass.HARD,
    "suppress-complaint": BounceClass.COMPLAINT,
    "suppress-unsubscribe": BounceClass.UNSUBSCRIBE,
    "espblock": BounceClass.BLOCK,
    "old": BounceClass.SOFT,
}

# What `blocked` means at Brevo: a list of its own, with the reason in a sentence.
BREVO_BLOCKS: Mapping[str, BounceClass] = {
    "unsubscribe": BounceClass.UNSUBSCRIBE,
    "spam": BounceClass.COMPLAINT,
    "complain": BounceClass.COMPLAINT,
    "hard bounce": BounceClass.HARD,
    "invalid": BounceClass.HARD,
}

# https://dev.mailjet.com/email/guides/webhooks/, "Possible values for errors"
MAILJET: Mapping[str, BounceClass] = {
    "user unknown": BounceClass.HARD,
    "mailbox inactive": BounceClass.HARD,
    "invalid domain": BounceClass.HARD,
    "no mail host": BounceClass.HARD,
    "typofix": BounceClass.HARD,
    "quota exceeded": BounceClass.SOFT,
    "greylisted": BounceClass.SOFT,
    "system issue": BounceClass.SOFT,
    "protocol issue": BounceClass.SOFT,
    "connection issue": BounceClass.SOFT,
    "relay/access denied": BounceClass.BLOCK,
    "sender blocked": BounceClass.BLOCK,
    "content blocked": BounceClass.BLOCK,
    "policy issue": BounceClass.BLOCK,
    "blacklisted": BounceClass.BLOCK,
    # Blocked by Mailjet itself, for a reason it does not tell.
    "preblocked": BounceClass.BLOCK,
    "spam reporter": BounceClass.COMPLAINT,
    "duplicate in campaign": BounceClass.CONTENT,
    "error in template language": BounceClass.CONTENT,
}

# https://support.sparkpost.com/docs/deliverability/bounce-classification-codes; 1 (undetermined),
# 20, 40 and 70 say no more than that it failed, and are left to the reply.
SPARKPOST: Mapping[str, BounceClass] = {
    "10": BounceClass.HARD,
    "21": BounceClass.SOFT,
    "22": BounceClass.SOFT,
    "23": BounceClass.CONTENT,
    "24": BounceClass.SOFT,
    # Failed by a rule of SparkPost's or of the account's, its suppression list among them.
    "25": BounceClass.BLOCK,
    "26": BounceClass.BLOCK,
    "30": BounceClass.HARD,
    "50": BounceClass.BLOCK,
    "51": BounceClass.BLOCK,
    "52": BounceClass.BLOCK,
    "53": BounceClass.CONTENT,
    "54": BounceClass.BLOCK,
    "60": BounceClass.AUTO_REPLY,
    # A request to subscribe. It is no proof of consent and lifts nothing.
    "80": BounceClass.AUTO_REPLY,
    "90": BounceClass.UNSUBSCRIBE,
    "100": BounceClass.AUTO_REPLY,
}

_NOT_THE_ADDRESS = frozenset(
    {BounceClass.AUTH, BounceClass.BLOCK, BounceClass.THROTTLE, BounceClass.CONTENT}
)
_FULL = re.compile(r"(?<![\d.])[45]\.2\.2(?![\d.])")

_KINDS = {
    BounceClass.COMPLAINT: FeedbackKind.COMPLAINED,
    BounceClass.UNSUBSCRIBE: FeedbackKind.UNSUBSCRIBED,
}


REJECTED: Meaning = (FeedbackKind.REJECTED, BounceClass.CONTENT)
"""The provider had it and did not send it: it found a virus, or the mail could not be made."""


def classify(table: Mapping[str, BounceClass], raw_type: object) -> BounceClass:
    """The class of a provider's raw type; one it invented since is `SOFT`, which harms nobody."""
    return table.get(raw_type, BounceClass.SOFT) if isinstance(raw_type, str) else BounceClass.SOFT


def known(table: Mapping[str, BounceClass], raw_type: str) -> BounceClass | None:
    """The class of a provider's raw type in any case; None leaves it to the reply."""
    return table.get(raw_type.strip().lower())


def unless_the_code_says(bounce_class: BounceClass, reply: str, code: str) -> BounceClass:
    """The class of a raw type that says no more than "permanent"; the receiver's answer goes
    before it where that shows that the address is not to blame."""
    told = classify_reply(reply, code=code)
    is_full = told is BounceClass.SOFT and _FULL.search(f"{code} {reply}")
    return told if told in _NOT_THE_ADDRESS or is_full else bounce_class


def as_bounce(bounce_class: BounceClass) -> Meaning:
    """What came back as a bounce; some providers report a complaint or an unsubscribe as one."""
    return _KINDS.get(bounce_class, FeedbackKind.BOUNCED), bounce_class
