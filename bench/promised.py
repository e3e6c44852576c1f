"""`python -m bench.promised NAIVE|OURS URL BATCH_SIZE COUNT PREFIX`: send a broadcast of which some
addresses are dead, and of those some known to be.

Of a hundred people four have a dead address nobody knows of, two one that is suppressed already.
OURS puts it into the database and lets the drain do all of it. NAIVE is a loop on sixteen threads
that tries everything again: what was refused three times, as Celery does unless told otherwise,
what was to slow down until it is taken.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import django

from bench.http_sender import KEY, Job, anymail_mails, html
from bench.report import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contacts.models import Contact
    from content.models import TemplateVersion
    from delivery.models import Sender

_DEAD, _KNOWN = 4, 2
_TRIES = 4
_PAUSE = 0.1
_THREADS = 16
_CHUNK = 5_000


def address(prefix: str, number: int) -> str:
    """That of the person, which tells the provider whether it is dead."""
    mark = "dead-" if number % 100 < _DEAD + _KNOWN else ""
    return f"{mark}{prefix}-{number}@example.com"


def is_known_to_be_dead(number: int) -> bool:
    return number % 100 < _KNOWN


def naive(url: str, count: int, prefix: str) -> None:
    """One call per mail, and per try."""
    from anymail.exceptions import AnymailRequestsAPIError
    from django.core.mail import EmailMessage, get_connection

    addresses = [address(prefix, number) for number in range(count)]
    mails = anymail_mails(Job("anymail", url, count), addresses)

    def work(share: list[EmailMessage]) -> None:
        connection = get_connection(
            "anymail.backends.postmark.EmailBackend",
            server_token=os.environ[KEY],
            api_url=url,
        )
        connection.open()
        for mail in share:
            tries = _TRIES
            while tries:
                try:
                    connection.send_messages([mail])
                    break
                except Exception as error:  # noqa: BLE001 - that is what makes it naive
                    is_slow = isinstance(error, AnymailRequestsAPIError) and (
                        error.status_code == 429
                    )
                    tries -= not is_slow
                    time.sleep(_PAUSE)
        connection.close()

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(work, [mails[number::_THREADS] for number in range(_THREADS)]))


def ours(url: str, count: int, prefix: str, batch_size: int) -> None:
    """Until every mail has its fate."""
    from delivery.engine import drain
    from delivery.models import Message

    _broadcast(url, count, prefix, batch_size)
    open_states = ("queued", "claimed", "dispatching", "retry", "held", "unknown")
    while Message.objects.filter(state__in=open_states).exists():
        if not drain("marketing", budget=1.0):
            time.sleep(0.1)


def _broadcast(url: str, count: int, prefix: str, batch_size: int) -> None:
    from contacts.models import Topic
    from contacts.states import TopicPolicy
    from delivery.models import Message
    from delivery.states import Stream

    topic, _ = Topic.objects.get_or_create(
        key="bench", defaults={"name": "Bench", "policy": TopicPolicy.OPT_OUT}
    )
    sender, version = _sender(url, prefix, batch_size), _wording(prefix)
    Message.objects.bulk_create(
        [
            Message(
                dedupe_key=contact.email,
                contact=contact,
                email=contact.email,
                email_normalized=contact.email,
                stream=Stream.MARKETING,
                topic=topic,
                template_version=version,
                sender=sender,
                context={"payload": {}, "user": {"name": contact.name, "email": contact.email}},
            )
            for contact in _people(count, prefix)
        ],
        _CHUNK,
    )


def _sender(url: str, prefix: str, batch_size: int) -> "Sender":
    from delivery.models import Provider, Sender

    provider = Provider.objects.create(
        key=prefix,
        backend="postmark",
        api_url=url,
        secret_env=KEY,
        batch_size=batch_size,
        concurrency=_THREADS,
    )
    return Sender.objects.create(
        name="Shop", email="shop@example.com", postal_address="1 Pier", provider=provider
    )


def _wording(prefix: str) -> "TemplateVersion":
    from common.clock import now
    from content.models import Template, TemplateVersion

    return TemplateVersion.objects.create(
        template=Template.objects.create(key=prefix, name=prefix),
        number=1,
        published_at=now(),
        subject="For {{ user.name }}",
        html=html(0) + "<p>{{ user.name }}</p>",
    )


def _people(count: int, prefix: str) -> "Sequence[Contact]":
    """Some of them suppressed already."""
    from common.addresses import parse_address
    from contacts.models import Contact
    from suppression.services import SuppressionRequest, suppress_addresses
    from suppression.states import ALL, SuppressionReason

    addresses = [address(prefix, number) for number in range(count)]
    known = [a for number, a in enumerate(addresses) if is_known_to_be_dead(number)]
    suppress_addresses(
        [
            SuppressionRequest(parse_address(a), ALL, SuppressionReason.HARD_BOUNCE, "bench")
            for a in known
        ]
    )
    return Contact.objects.bulk_create(
        [Contact(user_id=a, email=a, email_normalized=a, name=a) for a in addresses], _CHUNK
    )


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    os.environ[KEY] = "a key"
    django.setup()
    _, who, where, size, number, name = sys.argv
    started = time.monotonic()
    if who == "NAIVE":
        naive(where, int(number), name)
    else:
        ours(where, int(number), name, int(size))
    say(str(time.monotonic() - started))
