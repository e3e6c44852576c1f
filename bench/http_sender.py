"""`python -m bench.http_sender JOB`: hand mails over to a provider, and say how long that took.

The mails are made before the clock starts: it measures the hand-over alone, with its journal. JOB
is a `Job` as JSON; what is written to stdout is the seconds it took.
"""

import gc
import os
import sys
import time
from typing import TYPE_CHECKING
from uuid import UUID

import django
import msgspec

from bench.report import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.core.mail import EmailMessage

    from delivery.models import Provider
    from delivery.turns import Departed, Handed

KEY = "BENCH_ESP_KEY"
_PARAGRAPH = "<p>Dear reader {n}, the storm lantern is back in stock, and oil with it.</p>\n"
_LINE = "Dear reader {n}, the storm lantern is back in stock, and oil with it.\n"


class Job(msgspec.Struct):
    """Who hands over (`emailauto`, or `anymail` in a loop over one connection) so many mails."""

    side: str
    url: str
    count: int
    backend: str = "postmark"
    batch_size: int | None = None
    at_once: int = 4
    claimed: int = 50
    """How many mails a worker takes at a time."""


def html(number: int) -> str:
    """About 5 KB that nobody else gets."""
    return _PARAGRAPH.format(n=number) * 66


def text(number: int) -> str:
    """About 1 KB."""
    return _LINE.format(n=number) * 14


def ours(job: Job) -> float:
    """Through the hand-over of the drain; raises unless every mail is accepted."""
    from common.ids import uuid7
    from delivery.handover import hand_over
    from delivery.journal import close_journal, open_journal
    from delivery.models import Provider
    from delivery.providers import TRAITS
    from delivery.routes import Routes
    from delivery.verdicts import Outcome

    provider = Provider(
        pk=1,
        key="esp",
        backend=job.backend,
        api_url=job.url,
        secret_env=", ".join([KEY] * len(TRAITS[job.backend].secrets)),
        concurrency=job.at_once,
        batch_size=job.batch_size,
        rate_limit=1_000_000,
    )
    routes = Routes()
    departed = _departed(provider, job.count)
    started = _clock()
    accepted = 0
    for start in range(0, job.count, job.claimed):
        journal = open_journal(uuid7())
        assert journal is not None
        some = departed[start : start + job.claimed]
        handed: list[Handed] = []
        hand_over(some, routes, journal, lambda: lambda _: False, handed.extend)
        close_journal(journal)
        accepted += sum(h.verdict.outcome == Outcome.ACCEPTED for h in handed)
    seconds = time.perf_counter() - started
    if accepted != job.count:
        last = handed[-1].verdict if handed else "nothing was begun"
        raise SystemExit(f"{accepted} of {job.count} mails were accepted; the last one: {last}")
    return seconds


def _departed(provider: "Provider", count: int) -> "list[Departed]":
    from common.clock import now
    from common.ids import uuid7
    from delivery.headers import headers_of
    from delivery.models import Message, Sender
    from delivery.outbound import Outbound, OutboundEmail
    from delivery.states import Stream
    from delivery.turns import Departed

    sender = Sender(pk=1, name="Shop", email="shop@example.com", provider=provider)
    moment = now()
    made = []
    for number in range(count):
        message = Message(
            pk=uuid7(),
            stream=Stream.MARKETING,
            sender=sender,
            provider=provider,
            origin_campaign="lanterns",
            created_at=moment,
        )
        email = OutboundEmail(
            subject=f"For reader {number}",
            body=text(number),
            from_email="Shop <shop@example.com>",
            to=[f"reader-{number}@example.com"],
            headers=headers_of(message, sender),
        )
        email.attach_alternative(html(number), "text/html")
        email.message_uuid = message.pk
        if provider.backend == "ses":
            email.wire = email.message().as_bytes(linesep="\r\n")  # type: ignore[call-arg]
        _label(email, message.pk)
        made.append(Departed(Outbound(message, provider, sender, email), 1, 0.0))
    return made


def _label(email: object, uuid: UUID) -> None:
    email.metadata = {"message_uuid": str(uuid)}  # type: ignore[attr-defined]
    email.tags = ["lanterns"]  # type: ignore[attr-defined]


def anymail(job: Job) -> float:
    """The same mails, each by `send()`, over one connection that stays open."""
    from django.core.mail import get_connection

    connection = get_connection(
        "anymail.backends.postmark.EmailBackend", server_token=os.environ[KEY], api_url=job.url
    )
    mails = anymail_mails(job, [f"reader-{number}@example.com" for number in range(job.count)])
    started = _clock()
    connection.open()
    for mail in mails:
        mail.connection = connection
        mail.send()
    connection.close()
    return time.perf_counter() - started


def anymail_mails(job: Job, addresses: "Sequence[str]") -> "list[EmailMessage]":
    """Mails as Django has them, one to each address."""
    from django.core.mail import EmailMultiAlternatives

    from delivery.models import Provider

    mails: list[EmailMessage] = []
    departed = _departed(Provider(pk=1, key="esp"), job.count)
    for item, address in zip(departed, addresses, strict=True):
        ours = item.outbound.email
        mail = EmailMultiAlternatives(
            ours.subject, ours.body, ours.from_email, [address], headers=ours.extra_headers
        )
        mail.attach_alternative(str(ours.alternatives[0][0]), "text/html")
        _label(mail, ours.message_uuid)
        mails.append(mail)
    return mails


def _clock() -> float:
    """The time from which on it counts; the garbage collector forgets what was made before."""
    gc.collect()
    gc.freeze()
    return time.perf_counter()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    os.environ[KEY] = "a key"
    django.setup()
    wanted = msgspec.json.decode(sys.argv[1], type=Job)
    say(str({"emailauto": ours, "anymail": anymail}[wanted.side](wanted)))
