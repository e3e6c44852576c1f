"""What a provider's own words for a bounce mean to us, as data.

The raw type decides, never a library's normalised one: Anymail calls a Postmark `SoftBounce`
"bounced" and a `SpamNotification` (the receiver's filter) "complained", and suppressing on that
would throw away good addresses.
"""

from collections.abc import Mapping
from enum import StrEnum


class BounceClass(StrEnum):
    """Why a mail came back, by what has to be done about it."""

    HARD = "hard"
    """The address is no good: suppress it."""
    SOFT = "soft"
    """It may work next time; also everything undetermined."""
    AUTO_REPLY = "auto_reply"
    """A machine or a person answered; the mail arrived."""
    BLOCK = "block"
    """The receiver does not like the sender: no fault of the address."""
    AUTH = "auth"
    """SPF, DKIM or DMARC: our set-up is wrong."""
    CONTENT = "content"
    """This very message is the problem."""
    COMPLAINT = "complaint"
    """The person called it spam."""
    UNSUBSCRIBE = "unsubscribe"
    """The person wrote back to be left alone."""


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


def classify(table: Mapping[str, BounceClass], raw_type: object) -> BounceClass:
    """The class of a provider's raw type; one it invented since is `SOFT`, which harms nobody."""
    return table.get(raw_type, BounceClass.SOFT) if isinstance(raw_type, str) else BounceClass.SOFT
