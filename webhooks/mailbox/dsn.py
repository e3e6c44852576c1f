"""Delivery status notifications (RFC 3464, RFC 6533): what a mail server says for machines."""

from collections.abc import Sequence
from itertools import islice

from delivery.bounces import FOR_GOOD, classify_reply
from webhooks.classification import as_bounce
from webhooks.kinds import FeedbackKind
from webhooks.mailbox.mime import Headers, Mail, read_headers, value
from webhooks.mailbox.told import Told
from webhooks.reading import as_detail

_TYPES = ("message/delivery-status", "message/global-delivery-status")
MAX_RECIPIENTS = 10
"""Which are judged. Our mails have one; what a report says of more than that are a list's."""
_OF_A_RECIPIENT = ("final-recipient", "original-recipient", "action", "status")

# `relayed` and `expanded`: it went on to where nobody reports from, or to several.
_ACTIONS = {"delivered": FeedbackKind.DELIVERED, "delayed": FeedbackKind.DEFERRED}
_BY_STATUS = {"2": "delivered", "4": "failed", "5": "failed"}


def read_dsn(mail: Mail) -> Told | None:
    """What it reports, or None when it is no such notification."""
    told = (
        fields
        for part in mail.of_type(*_TYPES)
        for fields in map(read_headers, part.text.strip().split("\n\n"))
        if any(name in _OF_A_RECIPIENT for name, _ in fields)
    )
    recipients = list(islice(told, MAX_RECIPIENTS))
    return _mildest([_of(fields, mail) for fields in recipients]) if recipients else None


def _of(fields: Headers, mail: Mail) -> Told:
    status, reply = value(fields, "status"), value(fields, "diagnostic-code")
    action = value(fields, "action").lower().partition(" ")[0] or _BY_STATUS.get(status[:1], "")
    detail = as_detail(action, status, reply)
    if action != "failed":
        return Told(_ACTIONS.get(action, FeedbackKind.OTHER), None, detail)
    # Where nothing is said to machines, people are told.
    return Told(*as_bounce(classify_reply(reply or mail.words, code=status)), detail)


def _mildest(told: Sequence[Told]) -> Told:
    """Our mails have one recipient. A report about several is of a list or a forward behind that
    address, and it is no good only if none of them is."""
    arrived = [one for one in told if one.kind is not FeedbackKind.BOUNCED]
    mild = [one for one in told if one.bounce_class not in FOR_GOOD]
    return (arrived or mild or told)[0]
