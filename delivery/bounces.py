"""Why a mail came back, by what has to be done about it."""

from enum import StrEnum


class BounceClass(StrEnum):
    """Why a mail came back, by what has to be done about it."""

    HARD = "hard"
    """The address is no good: suppress it."""
    OWNER_CHANGED = "owner_changed"
    """The mailbox belongs to somebody else now, who has consented to nothing."""
    SOFT = "soft"
    """It may work next time; also everything undetermined."""
    AUTO_REPLY = "auto_reply"
    """A machine or a person answered; the mail arrived."""
    THROTTLE = "throttle"
    """The receiver wants fewer mails at a time."""
    BLOCK = "block"
    """The receiver does not like the sender: no fault of the address."""
    AUTH = "auth"
    """SPF, DKIM, DMARC or the sending host's name: our set-up is wrong."""
    CONTENT = "content"
    """This very message is the problem."""
    COMPLAINT = "complaint"
    """The person called it spam."""
    UNSUBSCRIBE = "unsubscribe"
    """The person asked to be left alone."""


def classify_reply(text: str, *, code: str = "") -> BounceClass:
    """What a receiving server's words mean."""
    return BounceClass.SOFT
