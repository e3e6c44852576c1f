"""What a mail in the bounce mailbox means.

Anybody can write to that mailbox, so a mail counts for a message only with a proof that its author
has had that message: the token in the address it came back to, or our Message-ID. Without one it is
recorded and touches nobody; the address it names is never taken from it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from uuid import UUID

from delivery.bounces import BounceClass
from delivery.headers import uuid_in_message_id
from delivery.return_paths import RETURN_PATH, UNSUBSCRIBE_MAIL, uuids_in_addresses
from webhooks.classification import as_bounce
from webhooks.kinds import Feedback, FeedbackKind
from webhooks.mailbox.arf import read_arf
from webhooks.mailbox.dsn import read_dsn
from webhooks.mailbox.mime import Mail, read_mail
from webhooks.mailbox.prose import read_answer, read_bounce
from webhooks.mailbox.told import Told
from webhooks.reading import as_detail

NAME = "mailbox"

_MESSAGE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9a-f]{8}@")
_MAX_CANDIDATES = 50
_RECIPIENT = (
    *("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-rcpt-to"),
    *("to", "cc", "received"),
)


def parse(body: bytes, received_at: datetime) -> Sequence[Feedback]:
    """One piece of feedback. Its time is when we got it: a mail's own times are anybody's."""
    mail = read_mail(body)
    told = read_arf(mail) or read_dsn(mail) or read_bounce(mail)
    if told is None and (leaving := _who_unsubscribes(mail)) is not None:
        told = Told(*as_bounce(BounceClass.UNSUBSCRIBE), as_detail(mail.first("subject")))
        return [_feedback(told, leaving, received_at)]
    told = told or read_answer(mail) or Told(FeedbackKind.OTHER, None, "no report")
    return [_feedback(told, _message_of(mail), received_at)]


def _feedback(told: Told, message: UUID | None, received_at: datetime) -> Feedback:
    return Feedback(
        kind=told.kind,
        at=received_at,
        source=NAME,
        message_uuid=message,
        bounce_class=told.bounce_class,
        detail=told.detail,
    )


def _who_unsubscribes(mail: Mail) -> UUID | None:
    """The message whose recipient wrote to its List-Unsubscribe address. A mail that quotes that
    address, as a returned one does, is not sent to it."""
    sent_to = " ".join(mail.values(*_RECIPIENT))
    return next(uuids_in_addresses(UNSUBSCRIBE_MAIL, sent_to), None)


def _message_of(mail: Mail) -> UUID | None:
    """The message it is about: by where it was sent to, else by what it brings back."""
    named = chain.from_iterable(map(_proven, _places(mail)))
    return next(named, None)


def _places(mail: Mail) -> Iterator[str]:
    yield "\n".join(mail.values(*_RECIPIENT))
    yield "\n".join(text for _, text in mail.headers)
    yield from (part.text for part in mail.parts)


def _proven(text: str) -> Iterator[UUID]:
    yield from islice(uuids_in_addresses(RETURN_PATH, text), 1)
    for match in islice(_MESSAGE_ID.finditer(text), _MAX_CANDIDATES):
        uuid = uuid_in_message_id(match[0])
        if uuid is not None:
            yield uuid
