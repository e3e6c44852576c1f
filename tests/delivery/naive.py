"""The sender that is usually written: a Celery task per mail, Anymail, retries, a flag.

`celery -A tests.delivery.naive worker`. Nothing in it is made worse than it is found: the task is
acknowledged late, looks whether its mail is sent, retries with backoff, and has a visibility
timeout longer than it lasts. NAIVE_REQUEUES=1 adds `reject_on_worker_lost`, which some do.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

import django
from celery import Celery
from django.apps import apps
from kombu import Connection

if not apps.ready:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emailauto.settings")
    django.setup()

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connection, models
from redis import Redis

from common.ids import uuid7
from tests.delivery import crashing

QUEUE = "naive"

app = Celery("naive", set_as_current=False)
app.conf.task_default_queue = QUEUE
app.conf.task_ignore_result = True
# What happens to a killed child's task happens after a second rather than ten.
app.conf.worker_lost_wait = 1.0
app.conf.broker_transport_options = {
    "visibility_timeout": int(os.environ.get("NAIVE_VISIBILITY_SECONDS", "3600")),
    # What a killed worker held is looked for every second, not every hundred.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 2,
}


class Mail(models.Model):
    """One mail to one person."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    email = models.CharField(max_length=254)
    sent = models.BooleanField(default=False)

    class Meta:
        app_label = "naive"

    def __str__(self) -> str:
        return str(self.pk)


@app.task(
    acks_late=True,
    reject_on_worker_lost=os.environ.get("NAIVE_REQUEUES") == "1",
    autoretry_for=(Exception,),
    retry_backoff=True,
)
def send(mail_id: str) -> None:
    """Send a mail unless it is sent, and remember that it is."""
    mail = Mail.objects.get(pk=mail_id)
    if mail.sent:
        return
    backend = get_connection(
        "anymail.backends.postmark.EmailBackend",
        server_token="a key",
        api_url=os.environ["NAIVE_API_URL"],
    )
    EmailMessage(
        "Hello",
        "Hello Ada",
        "shop@example.com",
        [mail.email],
        headers={"Message-ID": f"<{mail.pk}.00000000@example.com>"},
        connection=backend,
    ).send()
    mail.sent = True
    mail.save()


@contextmanager
def table() -> Iterator[None]:
    """Its table exists meanwhile."""
    with connection.schema_editor() as editor:
        editor.create_model(Mail)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Mail)


def enqueue(count: int) -> list[UUID]:
    """So many mails, committed and then put on the queue, in order; their ids."""
    mails = Mail.objects.bulk_create(Mail(email=f"u{n}@example.com") for n in range(count))
    ids = [mail.pk for mail in mails]
    _put(ids)
    return ids


def _put(ids: Iterable[UUID]) -> None:
    # As Celery's own setting it would stand behind the variable CELERY_BROKER_URL.
    with Connection(crashing.broker()) as broker:
        for mail_id in ids:
            send.apply_async((str(mail_id),), connection=broker)


@contextmanager
def worker(
    url: str, *, concurrency: int, requeues: bool = False, visibility_seconds: int = 60
) -> Iterator["subprocess.Popen[bytes]"]:
    """A running one that sends to the provider at `url`."""
    command = "-m celery -A tests.delivery.naive worker --without-mingle --without-gossip"
    process = subprocess.Popen(
        [sys.executable, *command.split(), "-c", str(concurrency), "-Q", QUEUE],
        env={
            **crashing.environment(broker=crashing.broker()),
            "NAIVE_API_URL": url,
            "NAIVE_REQUEUES": "1" if requeues else "0",
            "NAIVE_VISIBILITY_SECONDS": str(visibility_seconds),
        },
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def is_idle() -> bool:
    """Whether the broker knows of nothing that is still to be done, or begun and not ended."""
    with Redis.from_url(settings.REDIS_URL) as broker:
        return not broker.llen(QUEUE) and not broker.hlen("unacked")
