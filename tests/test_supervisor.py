"""The supervisor, over real processes and real servers."""

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from psycopg import connect

from emailauto.asgi import _THREADS, Application
from emailauto.embedded.placement import temporary_placement
from emailauto.orphans import Ledger
from emailauto.processes import Child, Process
from emailauto.supervisor import environment, health, programs
from emailauto.supervisor.announcement import Announcement
from emailauto.supervisor.exceptions import StartError, StopRequested
from emailauto.supervisor.family import Family
from emailauto.supervisor.lock import sole_supervisor
from emailauto.supervisor.programs import Workplace
from emailauto.supervisor.signals import Signals

# Prints its own id and that of a grandchild, which does not care about signals.
PARENT = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child then")


def python(tmp_path: Path, code: str, *, name: str = "thing", grace: float = 5.0) -> Process:
    return Process(
        name=name,
        argv=(sys.executable, "-c", code),
        env={**os.environ, "EMAILAUTO_VAR": str(tmp_path)},
        cwd=tmp_path,
        log=tmp_path / f"{name}.log",
        grace=grace,
    )


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(met)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def logged_pids(process: Process) -> tuple[int, int]:
    """Return the ids that PARENT printed last."""
    assert eventually(lambda: process.log.exists() and process.log.read_text().endswith("\n"))
    parent, child = process.log.read_text().splitlines()[-1].split()
    return int(parent), int(child)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def family(tmp_path: Path, said: list[str]) -> Iterator[Family]:
    ledger = Ledger(tmp_path / "processes.json")
    family = Family(ledger, say=said.append, on_change=lambda: said.append("changed"))
    yield family
    family.stop(is_hurried=lambda: True)


# --- one child


def test_child_that_ignores_its_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = Child(python(tmp_path, STUBBORN, grace=0.3))
    child.start()
    assert eventually(lambda: "ready" in child.process.log.read_text())
    began = time.monotonic()
    child.stop()
    assert 0.3 <= time.monotonic() - began < 30.0
    assert child.pid is None


def test_child_that_ignores_its_signal_is_killed_at_once_in_a_hurry(tmp_path: Path) -> None:
    child = Child(python(tmp_path, STUBBORN, grace=60.0))
    child.start()
    assert eventually(lambda: "ready" in child.process.log.read_text())
    began = time.monotonic()
    child.stop(is_hurried=lambda: True)
    assert time.monotonic() - began < 30.0


def test_child_is_stopped_together_with_what_it_forked(tmp_path: Path) -> None:
    child = Child(python(tmp_path, PARENT))
    child.start()
    parent, grandchild = logged_pids(child.process)
    child.stop()
    assert not is_alive(parent)
    assert eventually(lambda: not is_alive(grandchild))


def test_child_log_is_private_and_moved_aside_when_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailauto.processes._LOG_BYTES", 3)
    child = Child(python(tmp_path, "print('lines')"))
    for _ in range(2):
        child.start()
        assert eventually(lambda: child.exit_code() == 0)
        child.stop()
    assert (tmp_path / "thing.log.1").read_text() == "lines\n"
    assert stat.S_IMODE((tmp_path / "thing.log").stat().st_mode) == 0o600


# --- orphans

SUPERVISOR = """
import json, pathlib, signal, sys, time
from emailauto.orphans import Ledger
from emailauto.processes import Child, Process
given = json.loads(sys.argv[1])
place = pathlib.Path(given["place"])
# On Linux the kernel would end them: SIGCONT leaves them running, as another system would.
child = Child(Process("thing", tuple(given["argv"]), {"EMAILAUTO_VAR": str(place)}, place,
    place / "thing.log", stop_signal=signal.SIGCONT))
child.start()
Ledger(place / "processes.json").record([child])
print("recorded", flush=True)
time.sleep(600)
"""


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A process and its child, recorded by a supervisor that was killed."""
    thing = python(tmp_path, PARENT)
    given = json.dumps({"place": str(tmp_path), "argv": thing.argv})
    command = [sys.executable, "-c", SUPERVISOR, given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout.readline() == "recorded\n"
        found = logged_pids(thing)
        supervisor.kill()
    yield found
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_ledger_ends_what_a_killed_supervisor_left(
    tmp_path: Path, orphans: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailauto.orphans._PATIENCE", 0.2)
    assert Ledger(tmp_path / "processes.json").end_orphans() == 2
    assert not any(map(is_alive, orphans))
    assert not (tmp_path / "processes.json").exists()


def test_ledger_ends_the_children_of_a_leader_that_is_gone(
    tmp_path: Path, orphans: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailauto.orphans._PATIENCE", 0.2)
    leader, member = orphans
    os.kill(leader, signal.SIGKILL)
    assert eventually(lambda: not is_alive(leader))
    assert Ledger(tmp_path / "processes.json").end_orphans() == 1
    assert not is_alive(member)


def test_ledger_spares_a_process_that_got_a_recorded_id_later(
    tmp_path: Path, orphans: tuple[int, int]
) -> None:
    path = tmp_path / "processes.json"
    document = json.loads(path.read_text())
    document["processes"][0]["born"] -= 3600
    path.write_text(json.dumps(document))
    assert Ledger(path).end_orphans() == 0
    assert all(map(is_alive, orphans))


def test_ledger_that_came_with_a_copied_directory_ends_nobody(
    tmp_path: Path, orphans: tuple[int, int]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "processes.json").write_text((tmp_path / "processes.json").read_text())
    assert Ledger(copy / "processes.json").end_orphans() == 0
    assert all(map(is_alive, orphans))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processes": 1}'])
def test_ledger_that_cannot_be_read_ends_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "processes.json").write_text(content)
    assert Ledger(tmp_path / "processes.json").end_orphans() == 0


# --- the family


def test_family_restarts_a_killed_child_without_the_rest_of_its_old_self(
    tmp_path: Path, family: Family, said: list[str]
) -> None:
    child = family.start(python(tmp_path, PARENT))
    before = logged_pids(child.process)
    os.kill(before[0], signal.SIGKILL)

    assert eventually(lambda: family.tend() and family.pids.get("thing", before[0]) != before[0])

    assert eventually(lambda: not is_alive(before[1]))
    assert said == [
        f"thing ended (SIGKILL); restarting it in 0.2 s. Its log: {child.process.log}",
        "changed",
    ]


def test_family_waits_longer_for_a_child_that_keeps_dying(
    tmp_path: Path, family: Family, said: list[str]
) -> None:
    family.start(python(tmp_path, "raise SystemExit(3)"))
    assert eventually(lambda: family.tend() and family.deaths("thing") == 3)
    delays = [line.split(" s. ")[0].rsplit(" ", 1)[1] for line in said if "ended" in line]
    assert delays == ["0.2", "0.4", "0.8"]


def test_family_keeps_trying_a_child_that_cannot_be_started(
    tmp_path: Path, family: Family, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailauto.supervisor.family._LONGEST_DELAY", 0.1)
    directory = tmp_path / "gone"
    directory.mkdir()
    family.start(python(directory, "raise SystemExit(3)"))
    assert eventually(lambda: (directory / "thing.log").exists())
    (directory / "thing.log").unlink()
    directory.rmdir()

    assert eventually(lambda: family.tend() and any("cannot be started" in line for line in said))
    directory.mkdir()
    assert eventually(lambda: family.tend() and "changed" in said)


def test_family_stops_the_last_started_first(tmp_path: Path, family: Family) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        "    open({order!r}, 'a').write({name!r} + ' ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    for name in ("first", "second", "third"):
        written = code.format(order=str(order), name=name)
        family.start(process := python(tmp_path, written, name=name, grace=60.0))
        assert eventually(lambda log=process.log: "ready" in log.read_text())
    family.stop(is_hurried=lambda: False)
    assert order.read_text() == "third second first "
    assert family.pids == {}


# --- signals


def test_pause_raises_once_a_stop_is_asked_for() -> None:
    with Signals(watch_parent=False) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            signals.pause(10.0)
        assert not signals.is_hurried
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.is_hurried


def test_pause_ends_early_when_a_child_dies() -> None:
    with Signals(watch_parent=False) as signals:
        began = time.monotonic()
        with subprocess.Popen([sys.executable, "-c", ""]):
            signals.pause(60.0)
        assert time.monotonic() - began < 30.0


# Lives on until its parent is dead, and then for as many looks as would have told it.
WATCHING = """
import os, sys
from emailauto.supervisor.exceptions import StopRequested
from emailauto.supervisor.signals import Signals
parent, looks = os.getppid(), 0
with Signals(watch_parent=sys.argv[1] == "yes") as signals:
    print("watching", flush=True)
    try:
        while looks < 10:
            signals.pause(0.1)
            looks += os.getppid() != parent
        print("survived", flush=True)
    except StopRequested:
        print("stopped", flush=True)
"""


@pytest.mark.parametrize(("watch", "end"), [("yes", "stopped"), ("no", "survived")])
def test_death_of_the_parent_stops_only_those_who_watch_it(watch: str, end: str) -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, WATCHING, watch]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "watching\n"
        parent.kill()
        assert parent.stdout.readline() == f"{end}\n"


# --- what the operator gave


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("EMAILAUTO_VAR", "DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_given_environment_puts_the_process_before_the_file(
    tmp_path: Path, operator: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=postgres://file/x\nREDIS_URL=redis://file\n")
    operator.setenv("DATABASE_URL", "postgres://process/x")
    given = environment.given_environment(tmp_path)
    assert given["DATABASE_URL"] == "postgres://process/x"
    assert given["REDIS_URL"] == "redis://file"
    assert "REDIS_URL" not in os.environ


def test_given_environment_does_not_take_the_last_start_for_the_operator(
    tmp_path: Path, operator: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "embedded.env").write_text(
        "DATABASE_URL=postgres://gone/x\nPUBLIC_URL=http://127.0.0.1:8000\n"
    )
    operator.setenv("DATABASE_URL", "postgres://gone/x")
    operator.setenv("PUBLIC_URL", "https://mail.example.com")
    given = environment.given_environment(tmp_path)
    assert "DATABASE_URL" not in given
    assert given["PUBLIC_URL"] == "https://mail.example.com"


def test_default_port_that_is_taken_is_passed_over(operator: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        operator.setattr(environment, "DEFAULT_PORT", port)
        with environment.reserve_port({}, "127.0.0.1") as reservation:
            assert reservation.getsockname()[1] > port


def test_chosen_port_that_is_taken_is_an_error_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"Port {port} .* is taken.*PORT={port + 1} make run"):
            environment.reserve_port({"PORT": str(port)}, "127.0.0.1")


def test_port_that_another_start_reserved_is_taken() -> None:
    with environment.reserve_port({}, "127.0.0.1") as first:
        port = first.getsockname()[1]
        with environment.reserve_port({}, "127.0.0.1") as second:
            assert second.getsockname()[1] != port
        with pytest.raises(StartError, match="is taken"):
            environment.reserve_port({"PORT": str(port)}, "127.0.0.1")


def test_port_that_is_reserved_can_be_listened_on_by_who_shares_it() -> None:
    with environment.reserve_port({}, "127.0.0.1") as reservation:
        address = reservation.getsockname()
        with (
            socket.create_server(address, reuse_port=True) as server,
            socket.create_connection(address),
        ):
            server.accept()[0].close()


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_port_that_is_none_is_an_error(port: str) -> None:
    with pytest.raises(StartError, match=f"PORT={port} is not a port"):
        environment.reserve_port({"PORT": port}, "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("mail.example.com", "http://mail.example.com:80"),
    ],
)
def test_base_url_can_be_reached_from_this_machine(host: str, url: str) -> None:
    assert environment.base_url(host, 80) == url


# --- one supervisor


def test_second_supervisor_is_told_where_the_first_one_is(tmp_path: Path) -> None:
    with sole_supervisor(tmp_path):
        (tmp_path / "run.json").write_text('{"url": "http://127.0.0.1:8000"}')
        with (
            pytest.raises(StartError) as refused,
            sole_supervisor(tmp_path),
        ):
            pass
    pid = os.getpid()
    assert str(refused.value) == (
        f"emailauto already runs at http://127.0.0.1:8000 as process {pid}; "
        f"stop it with: kill {pid}"
    )
    with sole_supervisor(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_runtime_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    with pytest.raises(StartError, match="belongs to nobody"), sole_supervisor(tmp_path):
        pass


# --- health


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, str]]]:
    """Paths and what a server on loopback answers to them, when it gets to; `url` is where it
    is."""
    monkeypatch.setattr(health, "_ANSWER_SECONDS", 60.0)
    found: dict[str, tuple[int, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = found.get(self.path, (404, ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found["url"] = (0, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_application_is_ready_when_it_says_so(
    answers: dict[str, tuple[int, str]], status: int, ready: bool
) -> None:
    answers["/readyz"] = (status, "")
    assert health.is_ready(answers["url"][1]) is ready


@pytest.mark.parametrize(
    ("body", "idle"),
    [
        ('{"worker_idle_seconds": 61.5}', 61.5),
        ('{"worker_idle_seconds": 0}', 0.0),
        ('{"worker_idle_seconds": null}', None),
        ("{}", None),
        ("[]", None),
        ("<html>", None),
    ],
)
def test_idle_time_is_unknown_unless_it_is_a_number(
    answers: dict[str, tuple[int, str]], body: str, idle: float | None
) -> None:
    answers["/healthz"] = (503, body)
    assert health.worker_idle_seconds(answers["url"][1]) == idle


def test_application_that_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert not health.is_ready(url)
        assert health.worker_idle_seconds(url) is None


@pytest.mark.parametrize(
    ("idle", "worker", "broker", "stuck"),
    [(61, 61, 61, True), (60, 99, 99, False), (99, 60, 99, False), (99, 99, 60, False)],
)
def test_worker_is_stuck_after_an_idle_minute_with_a_broker(
    idle: float, worker: float, broker: float, stuck: bool
) -> None:
    assert health.is_stuck(idle, worker_uptime=worker, broker_uptime=broker) is stuck


# --- the announcement


def test_banner_holds_a_command_that_a_shell_reads_as_the_event() -> None:
    announcement = Announcement(
        url="http://127.0.0.1:8001",
        port=8001,
        api_key="emauto_live_a_b",
        admin_login={"username": "demo", "password": "pass"},
        webhook_secret="user:password",
    )
    banner = announcement.banner(is_port_chosen=False)
    assert "8000 was taken" in banner
    assert "demo / pass" in banner
    words = shlex.split(
        banner[banner.index("curl") : banner.index("\n\nCtrl-C")].replace("\\\n", "")
    )
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8001/api/v1/events"]
    assert "Authorization: Bearer emauto_live_a_b" in words
    event = json.loads(words[-1])
    assert event["event_type"] == "UserSignedUp"
    assert event["payload"] == {"email": "ada@example.com", "name": "Ada"}
    assert abs(event["timestamp"] / 1000 - time.time()) < 60


@pytest.mark.parametrize("cores", [1, 16, 512])
def test_processes_find_enough_connections_however_many_cores_there_are(
    cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailauto.supervisor.programs._cores", lambda: cores)
    place = Workplace(checkout=tmp_path, logs=tmp_path, env={})
    workers = [programs.worker(place), programs.bulk_worker(place)]
    processes = sum(int(option(one, "--concurrency")) for one in workers)
    web_workers = int(option(programs.web(place, host="127.0.0.1", port=1), "--workers"))
    application = Application()
    threads = _THREADS + sum(pool._max_workers for pool in pools(application))
    # What is posted is committed on one connection per intake; the clock has one, too.
    others = web_workers * len(application._intakes) + 1
    with connect(os.environ["DATABASE_URL"]) as database:
        row = database.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
        ).fetchone()
    assert row is not None
    assert processes + web_workers * threads + others <= row[0]


def option(process: Process, name: str) -> str:
    return process.argv[process.argv.index(name) + 1]


def pools(application: Application) -> Iterator[ThreadPoolExecutor]:
    for intake in application._intakes:
        yield from (
            value for value in vars(intake).values() if isinstance(value, ThreadPoolExecutor)
        )


# --- the whole stack, with small programs in place of ours

DRIVER = """
import pathlib, sys
from emailauto.supervisor import health, programs, stack
from emailauto.supervisor.exceptions import StartError

WEB = '''
import http.server, json, os, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        idle = pathlib.Path(os.environ["EMAILAUTO_VAR"], "idle")
        seconds = float(idle.read_text()) if idle.exists() else None
        body = json.dumps({"worker_idle_seconds": seconds}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer.allow_reuse_port = True  # as granian does
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
'''
PREPARE = '''
import json, os
assert os.environ["DATABASE_URL"] and os.environ["REDIS_URL"] and os.environ["SECRET_KEY"]
if os.environ.get("SPOIL"):
    raise SystemExit("the migration failed")
print(json.dumps({"admin_login": {"username": "demo",
    "password": os.environ["EMAILAUTO_DEMO_PASSWORD"]}}))
'''
SLEEP = "import time; time.sleep(600)"
programs.prepare = lambda workplace: workplace.process("prepare", "-c", PREPARE)
programs.web = lambda workplace, host, port: workplace.process("web", "-c", WEB, str(port))
programs.worker = lambda workplace: workplace.process("worker", "-c", SLEEP)
programs.bulk_worker = lambda workplace: workplace.process("bulk-worker", "-c", SLEEP)
programs.beat = lambda workplace: workplace.process("beat", "-c", SLEEP)
health.STUCK_SECONDS = 1.0
stack._HEALTH_SECONDS = 0.3
try:
    stack.up(pathlib.Path(sys.argv[1]))
except StartError as error:
    sys.exit(str(error))
"""


class Running:
    """A supervisor of the small programs in a directory."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.var = checkout / "var"
        self.process: subprocess.Popen[str] | None = None

    def start(self, **env: str) -> "subprocess.Popen[str]":
        """Start it; return when it serves or has ended."""
        (self.var / "run.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.checkout)],
            env={"PATH": os.environ["PATH"], **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        has_ended = self.process.poll
        assert eventually(lambda: (self.var / "run.json").exists() or has_ended() is not None, 60)
        return self.process

    def read(self) -> dict[str, object]:
        return json.loads((self.var / "run.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return self.read()["pids"]

    def stop(self) -> str:
        """Stop it and return all it said."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=30)
        return output


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_placement() as placement:
        yield placement.home


@pytest.fixture
def stack(home: Path) -> Iterator[Running]:
    running = Running(home)
    yield running
    if running.process.poll() is None:
        running.stop()
    running.process.stdout.close()


def test_stack_announces_itself_and_leaves_nothing_running(stack: Running) -> None:
    process = stack.start()
    announced = stack.read()
    pids = stack.pids

    assert sorted(pids) == [
        *("beat", "bulk-worker", "postgres", "supervisor", "valkey", "web", "worker")
    ]
    assert pids["supervisor"] == process.pid
    assert announced["admin_url"] == f"{announced['url']}/admin/"
    assert announced["inbox_url"] == f"{announced['url']}/admin/delivery/sandboxmail/"
    assert announced["docs_url"] == f"{announced['url']}/api/docs"
    secrets = json.loads((stack.var / "secrets.json").read_text())
    assert announced["api_key"] == secrets["EMAILAUTO_DEMO_API_KEY"]
    assert announced["webhook_secret"] == secrets["WEBHOOK_SECRET"]
    assert announced["admin_login"] == {
        "username": "demo",
        "password": secrets["EMAILAUTO_DEMO_PASSWORD"],
    }
    lines = (stack.var / "embedded.env").read_text().splitlines()
    written = [line.partition("=")[0] for line in lines]
    assert written == [
        *("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"),
        *("SECRET_KEY", "ADDRESS_HASH_KEY", "WEBHOOK_SECRET", "PUBLIC_URL", "SANDBOX_BY_DEFAULT"),
    ]
    for name in ("run.json", "embedded.env", "secrets.json", "processes.json"):
        assert stat.S_IMODE((stack.var / name).stat().st_mode) == 0o600

    assert str(announced["url"]) in stack.stop()
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in pids.values())
    assert not (stack.var / "run.json").exists()
    assert not (stack.var / "processes.json").exists()


def test_stack_restarts_every_killed_process_and_writes_its_new_id_down(stack: Running) -> None:
    stack.start()
    before = stack.pids
    killed = {name: pid for name, pid in before.items() if name != "supervisor"}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    assert eventually(lambda: not set(killed.values()) & set(stack.pids.values()))

    url = str(stack.read()["url"])
    assert eventually(lambda: health.is_ready(url))
    output = stack.stop()
    assert all(f"{name} ended (SIGKILL)" in output for name in killed)


def test_stack_restarts_a_worker_that_does_nothing(stack: Running) -> None:
    stack.start()
    before = stack.pids["worker"]
    idle = stack.var / "idle"
    idle.write_text("61")
    try:
        assert eventually(lambda: stack.pids["worker"] != before)
    finally:
        idle.unlink()
    assert "worker has done nothing for 61 s; restarting it." in stack.stop()


@linux_only
def test_stack_starts_again_after_its_supervisor_was_killed(stack: Running) -> None:
    first = stack.start()
    before = stack.pids
    first.kill()
    first.communicate()

    stack.start()

    assert not any(is_alive(pid) for pid in before.values())
    with urllib.request.urlopen(f"{stack.read()['url']}/readyz") as answer:
        assert answer.status == 200


def test_stack_starts_again_after_everything_was_killed(stack: Running) -> None:
    stack.start()
    before = stack.pids
    for pid in before.values():
        # The supervisor was the first, and the kernel ends the others with it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stack.process.communicate()

    stack.start()

    assert not set(before.values()) & set(stack.pids.values())


def test_stack_stops_with_the_reason_when_the_preparation_fails(stack: Running) -> None:
    process = stack.start(SPOIL="yes")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "The preparation failed" in output
    assert "the migration failed" in output


def test_stack_uses_the_servers_it_is_given(stack: Running) -> None:
    stack.start(DATABASE_URL="postgres://db.example/x", REDIS_URL="redis://cache.example/0")
    assert sorted(stack.pids) == ["beat", "bulk-worker", "supervisor", "web", "worker"]
    written = (stack.var / "embedded.env").read_text()
    assert "DATABASE_URL=" not in written
    assert "CELERY_BROKER_URL=redis://cache.example/0\n" in written
