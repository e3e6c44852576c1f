"""The whole thing as a newcomer has it: `manage.py up`, real processes, real HTTP, and faults."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from common.ids import uuid7
from emailauto.embedded.placement import temporary_placement
from emailauto.embedded.server import free_port
from tests.delivery.ledger import Ledger, messages_in, read_ledger
from tests.factories import event_document

ROOT = Path(__file__).resolve().parents[2]
# For whatever comes by itself. A worker that has stopped consuming without a word is started again
# after a minute, and that takes its time where other tests run.
SOON = 180.0
pytestmark = pytest.mark.xdist_group("stack")


class Stack:
    """A running emailauto in a directory of its own."""

    def __init__(self, var: Path, **environment: str) -> None:
        self.var = var
        given = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE")
        clean = {name: value for name, value in os.environ.items() if name not in given}
        clean |= {"EMAILAUTO_VAR": str(var), "PORT": str(free_port())}
        self._environment = {**clean, **environment}
        self.start()

    def start(self) -> None:
        with (self.var / "output").open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        banner = "Ctrl-C stops everything"
        eventually(lambda: banner in self.output or self._process.poll() is not None)
        assert self._process.poll() is None, self.output
        run = self.run
        self.http = httpx.Client(
            base_url=run["url"],
            headers={"Authorization": f"Bearer {run['api_key']}"},
            # A request that is given up may be answered all the same.
            timeout=30,
        )

    @property
    def output(self) -> str:
        return (self.var / "output").read_text()

    @property
    def run(self) -> dict[str, Any]:
        return json.loads((self.var / "run.json").read_text())

    def post(self, document: Any) -> int:
        return self.http.post("/api/v1/events", json=document).status_code

    def messages(self, **query: str) -> dict[str, Any]:
        return self.http.get("/api/v1/messages", params=query).raise_for_status().json()

    def states(self, prefix: str) -> Counter[str]:
        """The states of the messages whose event id starts with `prefix`."""
        items = self.messages(page_size="500")["results"]
        return Counter(item["state"] for item in items if item["event_id"].startswith(prefix))

    @property
    def terminal(self) -> dict[str, str]:
        """The environment of another terminal in this checkout."""
        environment = {**os.environ, "EMAILAUTO_VAR": str(self.var)}
        for name in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"):
            environment.pop(name, None)
        return environment

    def manage(self, code: str) -> str:
        """The output of a Python statement run by `manage.py shell` there."""
        command = [sys.executable, "manage.py", "shell", "-v0", "-c", code]
        return subprocess.run(
            command, cwd=ROOT, env=self.terminal, check=True, capture_output=True, text=True
        ).stdout

    @property
    def said(self) -> str:
        """The ends of the logs, for a failure that has to be understood."""
        logs = (
            self.var / "log" / f"{name}.log" for name in ("worker", "bulk-worker", "beat", "web")
        )
        return self.output[-1_000:] + "".join(
            f"\n{log}: {log.read_text()[-3_000:]}" for log in logs
        )

    def kill(self, *names: str) -> None:
        for name in names:
            with suppress(ProcessLookupError, FileNotFoundError, KeyError):
                os.kill(self.run["pids"][name], signal.SIGKILL)

    def cut_the_power(self) -> None:
        """Every process at once with SIGKILL; PostgreSQL as `pg_ctl stop -m immediate` ends it:
        nothing is flushed, and its next start has to recover."""
        postgres = self.run["pids"]["postgres"]
        family = psutil.Process(self._process.pid).children(recursive=True)
        backends = {child.pid for child in psutil.Process(postgres).children(recursive=True)}
        victims = [self._process.pid, *({child.pid for child in family} - backends - {postgres})]
        os.kill(postgres, signal.SIGQUIT)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
        self.http.close()

    def breaches(self, ledger: Path, accepted: list[str]) -> list[str]:
        """What the invariant auditor finds in this stack's database once all is at rest."""
        code = (
            "import json, pathlib; from tests.auditor import audit; "
            "from tests.delivery.ledger import read_ledger; "
            f"entries = read_ledger(pathlib.Path({str(ledger)!r})); "
            f"found = audit(ledger=entries, accepted={accepted!r}, lease_seconds=4, at_rest=True); "
            "print(json.dumps(found))"
        )
        found: list[str] = json.loads(self.manage(code))
        return found

    def stop(self) -> None:
        self.http.close()
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(120) == 0, self.output
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []


def eventually(condition: Callable[[], Any], seconds: float = SOON) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    return condition()


@contextmanager
def running_stack(**environment: str) -> Iterator[Stack]:
    # Not pytest's temporary directory: the servers' user may not enter it.
    with temporary_placement() as placement:
        var = placement.home / "var"
        var.mkdir()
        running = Stack(var, LEASE_SECONDS="4", SWEEP_SECONDS="1", **environment)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


def documents(count: int) -> tuple[str, list[dict[str, Any]]]:
    prefix = uuid7().hex
    return prefix, [event_document(f"{prefix}-{n}") for n in range(count)]


def inbox_counts(stack: Stack, prefix: str) -> Counter[int]:
    """How many mails of these events lie in the sandbox inbox how many times."""
    code = (
        "import json; from delivery.models import SandboxMail as M; print(json.dumps(list("
        f"M.objects.filter(to_email__startswith={prefix!r}).values_list('to_email', flat=True))))"
    )
    return Counter(Counter(json.loads(stack.manage(code))).values())


def test_curl_of_the_banner_puts_a_mail_into_the_inbox(stack: Stack) -> None:
    command = re.search(r"^curl .*?(?=\n\n)", stack.output, re.DOTALL | re.MULTILINE)
    assert command is not None, stack.output
    answer = subprocess.run(["bash", "-c", command[0]], check=True, capture_output=True, text=True)
    accepted = json.loads(answer.stdout)
    assert accepted.get("status") == "accepted", accepted
    query = {"event_id": accepted["event_id"], "state": "sent"}
    assert eventually(lambda: stack.messages(**query)["count"]) == 1
    assert stack.messages(email="ada@example.com")["count"] == 1


def test_every_page_a_newcomer_is_pointed_to_answers(stack: Stack) -> None:
    run = stack.run
    for url in (run["url"] + "/healthz", run["url"] + "/readyz", run["docs_url"]):
        assert httpx.get(url, timeout=30).status_code == 200
    assert httpx.get(run["admin_url"], follow_redirects=True, timeout=30).status_code == 200


def test_demo_fills_the_pages(stack: Stack) -> None:
    command = [sys.executable, "manage.py", "demo", "--events", "30", "--rate", "200"]
    environment = {**os.environ, "EMAILAUTO_VAR": str(stack.var)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert eventually(lambda: stack.messages(state="sent")["count"] >= 5)


def test_same_events_from_four_clients_while_workers_are_killed_are_mailed_once(
    stack: Stack,
) -> None:
    prefix, events = documents(60)
    posts = events * 3
    random.Random(7).shuffle(posts)
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(stack.post, posts)
        for _ in range(3):
            time.sleep(0.7)
            stack.kill("worker", "bulk-worker")
        assert set(answers) == {202}
    done = eventually(lambda: stack.states(prefix) == {"sent": 60})
    assert done, (stack.states(prefix), stack.said)
    assert inbox_counts(stack, prefix) == {1: 60}


def test_killed_web_server_and_database_lose_and_double_no_event(stack: Stack) -> None:
    prefix, events = documents(80)

    def insist(document: Any) -> int:
        """As a producer should: the same event again, until it hears that it was accepted."""
        for _ in range(600):
            with suppress(httpx.TransportError):
                status = stack.post(document)
                if status != 503:
                    return status
            time.sleep(0.1)
        return 0

    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(insist, events)
        for victim in ("web", "postgres", "web"):
            time.sleep(0.2)
            stack.kill(victim)
        assert set(answers) == {202}

    def is_settled() -> bool:
        # The last kill may still be felt.
        try:
            return stack.states(prefix) == {"sent": 80}
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 503:
                raise
            return False

    assert eventually(is_settled), (stack.states(prefix), stack.said)
    assert inbox_counts(stack, prefix) == {1: 80}


def test_without_valkey_events_are_accepted_and_mailed_once_it_is_back(stack: Stack) -> None:
    valkey = stack.run["pids"]["valkey"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        prefix, events = documents(3)
        assert [stack.post(event) for event in events] == [202] * 3
        assert stack.http.get("/readyz").status_code == 200
    finally:
        os.kill(valkey, signal.SIGCONT)
    stack.kill("valkey")
    assert eventually(lambda: stack.states(prefix) == {"sent": 3}), stack.states(prefix)


def test_k21_second_clock_and_the_killing_of_both_double_and_lose_nothing(stack: Stack) -> None:
    prefix = uuid7().hex
    command = [sys.executable, "-m", "celery", "-A", "emailauto", "beat", "--pidfile="]
    with (stack.var / "second-clock").open("w") as output:
        second = subprocess.Popen(
            command, cwd=ROOT, env=stack.terminal, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            unrung(stack, [f"{prefix}-a{n}" for n in range(20)])
            assert eventually(lambda: stack.states(prefix) == {"sent": 20}), stack.said
        finally:
            second.kill()
            second.wait(10)
    stack.kill("beat")
    unrung(stack, [f"{prefix}-b{n}" for n in range(5)])
    assert eventually(lambda: stack.states(prefix) == {"sent": 25}), stack.said
    assert inbox_counts(stack, prefix) == {1: 25}


def unrung(stack: Stack, names: list[str]) -> None:
    """Events whose bell was lost: nobody but a sweep tells the workers of them."""
    stack.manage(
        "from tests.factories import EventFactory\n"
        f"for name in {names!r}: EventFactory(event_id=name, user_id=name)"
    )


def test_no_log_of_any_process_holds_an_address(stack: Stack) -> None:
    stack.post(event_document("canary", payload={"email": "canary@example.com", "bad": "\x00"}))
    twice = "for _ in '12': Contact.objects.create(email_normalized='twice@example.com')"
    with pytest.raises(subprocess.CalledProcessError):
        stack.manage(f"from contacts.models import Contact\n{twice}")
    logs = [path for path in stack.var.rglob("*.log*") if path.is_file()]
    assert {"web.log", "worker.log", "postgres.log"} <= {path.name for path in logs}
    assert [path for path in logs if "example.com" in path.read_text(errors="replace")] == []


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smtp") / "ledger.jsonl"


@pytest.fixture(scope="module")
def mailing_stack(ledger: Path) -> Iterator[Stack]:
    """One that sends to a real SMTP server, which keeps a ledger."""
    book = Ledger(ledger)

    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
            content = envelope.content
            assert isinstance(content, bytes)
            for message_id in messages_in(content):
                book.take(message_id, content)
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=free_port(), ready_timeout=60)
    controller.start()
    with running_stack(EMAIL_URL=f"smtp://127.0.0.1:{controller.port}") as stack:
        yield stack
    controller.stop()
    book.close()


def test_email_url_makes_it_send_to_that_server(mailing_stack: Stack, ledger: Path) -> None:
    stack = mailing_stack
    prefix, events = documents(40)
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(stack.post, events)
        time.sleep(0.3)
        stack.kill("worker", "bulk-worker")
        assert set(answers) == {202}
    settled = ("sent", "unknown")
    eventually(lambda: sum(stack.states(prefix)[state] for state in settled) == 40)
    states = stack.states(prefix)
    # What is in doubt is shown; it may have arrived, and it is not sent again.
    assert states["sent"] + states["unknown"] == 40, states
    assert states["unknown"] <= 4  # one per process of the worker
    accepted = [event["event_id"] for event in events]
    assert eventually(lambda: stack.breaches(ledger, accepted) == []), stack.said
    assert states["sent"] <= len(taken(ledger)) <= 40


def test_k22_power_cut_under_load_loses_and_doubles_nothing(
    mailing_stack: Stack, ledger: Path
) -> None:
    stack = mailing_stack
    before = len(taken(ledger))
    accepted: list[str] = []

    def produce(document: dict[str, Any]) -> None:
        with suppress(httpx.TransportError):
            if stack.post(document) == 202:
                accepted.append(document["event_id"])

    _, events = documents(3_000)
    with ThreadPoolExecutor(4) as clients:
        for document in events:
            clients.submit(produce, document)
        # Some have come all the way, others are anywhere between.
        assert eventually(lambda: len(taken(ledger)) >= before + 20), stack.said
        stack.cut_the_power()
        clients.shutdown(cancel_futures=True)
    assert 20 <= len(accepted) < 3_000
    assert len(taken(ledger)) - before < len(accepted)
    stack.start()
    assert eventually(lambda: stack.breaches(ledger, accepted) == []), stack.said
    assert len(taken(ledger)) > before + 20


def taken(ledger: Path) -> set[UUID]:
    return {entry.message_id for entry in read_ledger(ledger)}
