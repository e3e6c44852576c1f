"""Every snippet of docs/first-event.md, run as it stands there, against the running server and
real brokers."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings

from campaigns.engine import process_batch
from delivery.models import Message
from emailauto.demo import ensure_api_key, load_demo
from emailauto.supervisor.announcement import Announcement
from events.models import ApiKey, Event, Rejection
from tests.events.brokers import (
    AWS,
    KAFKA_OPTIONS,
    Kafka,
    database_url,
    eventually,
    has_rabbitmq,
    rabbitmq,
    sqs,
)
from tests.events.serving import LOST, gateway, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("docs")]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "first-event.md"
START = "Before you start"

PEOPLE = {
    "curl": ["bo"],
    "Python": ["cleo"],
    "Node": ["dan"],
    "Segment": ["eve"],
    "RudderStack": ["finn"],
    "CloudEvents": ["gia"],
    "Kafka": ["hal", "ida"],
    "RabbitMQ": ["jon"],
    "Amazon SQS": ["kim"],
}
"""Whom the snippets of each section sign up."""

OUTPUT = "text"
FILES = {"python": "first.py", "js": "first.mjs"}

# kafka-python finds no broker in librdkafka's mock cluster; this hands its bytes to librdkafka.
KAFKA_PYTHON = """
import confluent_kafka

class KafkaProducer:
    def __init__(self, *, bootstrap_servers, value_serializer):
        self._serialize = value_serializer
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": ",".join(bootstrap_servers)}
        )

    def send(self, topic, value):
        self._producer.produce(topic, self._serialize(value))

    def flush(self):
        assert self._producer.flush(20) == 0
"""


class Fence(NamedTuple):
    language: str
    text: str


def sections(page: str) -> dict[str, list[Fence]]:
    """The fenced blocks below each heading of the second level."""
    found = {}
    for part in re.split(r"^## ", page, flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        blocks = re.findall(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if blocks:
            found[heading] = [Fence(*block) for block in blocks]
    return found


SECTIONS = sections(PAGE.read_text(encoding="utf-8"))


class Newcomer:
    """Somebody in a checkout, with two terminals."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._consumers: list[subprocess.Popen[bytes]] = []

    def paste(self, fences: Sequence[Fence]) -> None:
        """Run one after the other, and compare what the page says they print."""
        printed = ""
        for fence in fences:
            if fence.language == OUTPUT:
                assert_printed(fence.text, printed)
            elif "manage.py consume" in fence.text:
                self._consume(fence)
            else:
                printed = self.run(fence)

    def run(self, fence: Fence) -> str:
        """What the snippet prints."""
        done = subprocess.run(
            self._command(fence),
            cwd=self._home,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def leave(self) -> None:
        """Stop the consumers; each finishes what it has in hand."""
        for consumer in self._consumers:
            consumer.terminate()
            assert consumer.wait(60) == 0

    def _consume(self, fence: Fence) -> None:
        with (self._home / "consumer.log").open("ab") as log:
            self._consumers.append(
                subprocess.Popen(
                    # In place of the shell, so that the signal reaches it and its exit is seen.
                    ["sh", "-c", f"exec {fence.text}"],
                    cwd=self._home,
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _command(self, fence: Fence) -> list[str]:
        if fence.language == "sh":
            return ["sh", "-e", "-c", fence.text]
        file = self._home / FILES[fence.language]
        file.write_text(fence.text, encoding="utf-8")
        return [{"python": sys.executable, "js": "node"}[fence.language], file.name]


def assert_printed(expected: str, printed: str) -> None:
    """Each line the page shows was printed; `…` stands for anything."""
    for line in expected.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert re.search(f"^{pattern}\\s*$", printed, re.MULTILINE), (line, printed)


# --- brokers, as the page wants them exported


@contextmanager
def kafka(home: Path) -> Iterator[dict[str, str]]:
    cluster = Kafka()
    (home / "kafka.py").write_text(KAFKA_PYTHON, encoding="utf-8")
    options = json.dumps(KAFKA_OPTIONS)
    yield {"KAFKA_BOOTSTRAP_SERVERS": cluster.servers, "KAFKA_OPTIONS": options}
    cluster.close()


@contextmanager
def rabbit(home: Path) -> Iterator[dict[str, str]]:
    with rabbitmq(home) as port:
        yield {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}//"}


@contextmanager
def amazon(home: Path) -> Iterator[dict[str, str]]:
    with sqs(home) as port:
        yield {**AWS, "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{port}"}


BROKERS: dict[str, Callable[[Path], AbstractContextManager[dict[str, str]]]] = {
    "Kafka": kafka,
    "RabbitMQ": rabbit,
    "Amazon SQS": amazon,
}

LACKING = {
    "curl": pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed"),
    "Node": pytest.mark.skipif(not shutil.which("node"), reason="node is not installed"),
    "RabbitMQ": pytest.mark.skipif(not has_rabbitmq, reason="rabbitmq-server is not installed"),
}


# --- fixtures


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout as far as the page uses it."""
    for name in (".venv", "manage.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "var").mkdir()
    return tmp_path


@contextmanager
def newcomer(url: str, home: Path, section: str = "") -> Iterator[Newcomer]:
    """With the demo loaded as by `make run`, and everything exported that the page asks for."""
    load_demo()
    token = ApiKey.new_token()
    ensure_api_key(token)
    announcement = Announcement(url, 0, token, {}, "")
    (home / "var" / "run.json").write_text(announcement.run_file({}), encoding="utf-8")
    servers = {
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "CELERY_BROKER_URL": "memory://",
    }
    with ExitStack() as stack:
        exported = stack.enter_context(BROKERS.get(section, lambda _: nullcontext({}))(home))
        somebody = Newcomer(home, {**os.environ, **servers, **exported, **started(home)})
        stack.callback(somebody.leave)
        yield somebody


def started(home: Path) -> dict[str, str]:
    """The variables the page exports before anything else."""
    (fence,) = SECTIONS[START]
    show = Fence("sh", f'{fence.text}echo "$URL" "$KEY"')
    url, key = Newcomer(home, os.environ).run(show).split()
    return {"URL": url, "KEY": key}


# --- tests


def test_page_has_the_snippets_that_are_run_here_and_no_others() -> None:
    assert SECTIONS.keys() == {START, *PEOPLE}
    fences = [fence for section in SECTIONS.values() for fence in section]
    assert {fence.language for fence in fences} == {"sh", OUTPUT, *FILES}
    assert PAGE.read_text(encoding="utf-8").count("```") == 2 * len(fences)


@pytest.mark.parametrize(
    "section", [pytest.param(name, marks=LACKING.get(name, ())) for name in PEOPLE]
)
def test_snippets_put_each_event_into_the_inbox_once_and_it_becomes_a_mail(
    server: str, checkout: Path, section: str
) -> None:
    people = PEOPLE[section]
    with newcomer(server, checkout, section) as somebody:
        somebody.paste(SECTIONS[section])
        assert eventually(lambda: Event.objects.count() >= len(people))
    stored = Counter(Event.objects.values_list("type", "user_id", "payload__email"))
    assert stored == Counter(
        ("UserSignedUp", f"u-{name}", f"{name}@example.com") for name in people
    )
    assert not Rejection.objects.exists()
    while process_batch(limit=200):
        pass
    mailed = Counter(Message.objects.values_list("email", "origin_campaign"))
    assert mailed == Counter((f"{name}@example.com", "welcome") for name in people)


def test_python_snippet_tries_again_and_stores_its_event_once(server: str, checkout: Path) -> None:
    with gateway(server) as front, newcomer(front.url, checkout) as somebody:
        front.faults.extend([LOST, 503, (429, "1")])
        somebody.paste(SECTIONS["Python"])
        assert (front.seen, front.passed) == (4, 2)
    assert Event.objects.count() == 1
