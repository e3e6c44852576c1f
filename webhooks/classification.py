"""What a provider's own words for a bounce mean to us, as data.

The raw type decides, never a library's normalised one: Anymail calls a Postmark `SoftBounce`
"bounced" and a `SpamNotification` (the receiver's filter) "complained", and suppressing on that
would throw away good addresses.
"""

from collections.abc import Mapping

from delivery.bounces import BounceClass

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
