"""The embedded servers: real ones, made, killed, moved and left behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from emailauto.embedded import placement as placement_module
from emailauto.embedded import service_urls, throwaway_services
from emailauto.embedded.credentials import kept_credentials
from emailauto.embedded.exceptions import EmbeddedError
from emailauto.embedded.placement import Placement, place, temporary_placement
from emailauto.embedded.postgres import postgres_server
from emailauto.embedded.server import Server
from emailauto.embedded.valkey import valkey_server
from emailauto.orphans import working_in
from emailauto.processes import Child, become

GIVEN = {
    "DATABASE_URL": "postgres://db.example/app",
    "REDIS_URL": "redis://cache.example/3",
    "CELERY_BROKER_URL": "amqp://broker.example/",
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root places data for another user")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Child]:
    child = Child(server.process)
    child.start()
    try:
        server.wait(child)
        yield child
    finally:
        child.stop()


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


def is_listening(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((str(parts.hostname), int(parts.port or 0))) == 0


@pytest.fixture(scope="module")
def placed() -> Iterator[Placement]:
    with temporary_placement() as placement:
        yield placement


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, str]]:
    with throwaway_services({}) as found:
        yield found


@pytest.fixture
def postgres(placed: Placement) -> Server:
    return postgres_server(placed, log=placed.home / "postgres.log")


@pytest.fixture
def valkey(placed: Placement) -> Server:
    return valkey_server(placed, log=placed.home / "valkey.log")


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in place of root's, so that a test leaves nothing in the real one."""
    with temporary_placement() as placement:
        base = placement.home / "base"
        monkeypatch.setattr(placement_module, "_BASES", (base,))
        placement_module._base.cache_clear()
        yield base
        placement_module._base.cache_clear()


# --- throw-away services


def test_throwaway_services_name_everything_the_settings_need(services: dict[str, str]) -> None:
    assert sorted(services) == [
        "ADDRESS_HASH_KEY",
        "CELERY_BROKER_URL",
        "DATABASE_URL",
        "EMAILAUTO_DEMO_API_KEY",
        "EMAILAUTO_DEMO_PASSWORD",
        "REDIS_URL",
        "SECRET_KEY",
        "WEBHOOK_SECRET",
    ]


def test_throwaway_postgres_is_durable_and_listens_on_loopback_only(
    services: dict[str, str],
) -> None:
    with psycopg.connect(services["DATABASE_URL"]) as connection:
        shown = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s) ORDER BY name",
            [["fsync", "listen_addresses", "max_connections", "unix_socket_directories"]],
        ).fetchall()
    assert shown == [
        ("fsync", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("max_connections", "200"),
        ("unix_socket_directories", ""),
    ]


def test_unsynced_postgres_waits_for_no_disk() -> None:
    command = [sys.executable, "-m", "emailauto.embedded", "exec", "--unsynced", "--"]
    asked = (
        "import os, psycopg; "
        "print(psycopg.connect(os.environ['DATABASE_URL']).execute('SHOW fsync').fetchone()[0])"
    )
    unset = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    done = subprocess.run(
        [*command, sys.executable, "-c", asked], env=unset, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "off"), done.stderr


def test_throwaway_valkey_appends_and_never_evicts(services: dict[str, str]) -> None:
    with contextlib.closing(redis.Redis.from_url(services["REDIS_URL"])) as client:
        shown = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "bind")
    assert shown == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "bind": "127.0.0.1",
    }


def test_postgres_refuses_a_client_without_its_password(services: dict[str, str]) -> None:
    password = str(urlsplit(services["DATABASE_URL"]).password)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(services["DATABASE_URL"].replace(password, "guess"))


def test_valkey_refuses_a_client_without_its_password(services: dict[str, str]) -> None:
    port = urlsplit(services["REDIS_URL"]).port
    client = redis.Redis.from_url(f"redis://127.0.0.1:{port}/0")
    with contextlib.closing(client), pytest.raises(redis.AuthenticationError):
        client.ping()


def test_server_passwords_do_not_show_in_the_process_list(postgres: Server, valkey: Server) -> None:
    for server in (postgres, valkey):
        password = str(urlsplit(server.url).password)
        assert password not in " ".join(server.process.argv)
        assert password not in server.process.env.values()


def test_throwaway_services_leave_nothing_behind() -> None:
    with throwaway_services({"DATABASE_URL": GIVEN["DATABASE_URL"]}) as services:
        with contextlib.closing(redis.Redis.from_url(services["REDIS_URL"])) as client:
            directory = Path(client.config_get("dir")["dir"])
        assert directory.is_dir()
    assert not directory.parent.exists()
    assert not is_listening(services["REDIS_URL"])


def test_throwaway_services_start_nothing_when_everything_is_given() -> None:
    with throwaway_services(GIVEN) as services:
        assert not {name for name in services if name.endswith("_URL")}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"REDIS_URL": "redis://here/0", "CELERY_BROKER_URL": "redis://here/1"}),
        ({"CELERY_BROKER_URL": "amqp://broker"}, {"REDIS_URL": "redis://here/0"}),
    ],
    ids=["nothing given", "broker given"],
)
def test_service_urls_complete_what_is_given(
    given: dict[str, str], found: dict[str, str], valkey: Server
) -> None:
    here = Server(valkey.process, "redis://here", valkey.is_ready)
    assert service_urls(given, [here]) == found


def test_service_urls_take_a_given_redis_for_the_broker() -> None:
    assert service_urls({"REDIS_URL": "redis://cache"}, []) == {
        "CELERY_BROKER_URL": "redis://cache"
    }


# --- PostgreSQL


def test_postgres_recovers_on_its_port_after_it_and_a_busy_backend_were_cut_off(
    postgres: Server,
) -> None:
    with running(postgres) as child:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        busy = psycopg.connect(postgres.url, autocommit=True)
        busy.pgconn.send_query(b"SELECT pg_sleep(60)")
        os.kill(int(child.pid or 0), signal.SIGKILL)
        assert eventually(lambda: child.exit_code() is not None)

        child.kill()
        child.start()
        postgres.wait(child)
        busy.close()

        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
            connection.execute("DROP TABLE kept")


def test_postgres_starts_beside_a_claim_of_a_process_that_is_none_of_it(
    postgres: Server, placed: Placement
) -> None:
    other = subprocess.Popen(["sleep", "60"], **become(placed.identity))
    claim = postgres.process.cwd / "postmaster.pid"
    claim.write_text(f"{other.pid}\n{postgres.process.cwd}\n{int(time.time())}\n1\n\n\n\n")
    try:
        with running(postgres):
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_postgres_takes_over_from_an_orphaned_server(
    postgres: Server, placed: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = Child(postgres.process)
    orphan.start()
    postgres.wait(orphan)
    began = len(postgres.process.log.read_text())

    def youngest_first(directory: Path, *, name: str) -> list[psutil.Process]:
        return sorted(working_in(directory, name=name), key=lambda found: found.pid, reverse=True)

    send = psutil.Process.send_signal

    def slowly(process: psutil.Process, number: signal.Signals) -> None:
        send(process, number)
        time.sleep(0.05)

    # They are found in any order, and a busy machine may stop between two of them.
    monkeypatch.setattr("emailauto.embedded.postgres.working_in", youngest_first)
    monkeypatch.setattr(psutil.Process, "send_signal", slowly)
    successor = postgres_server(placed, log=placed.home / "postgres.log")
    with running(successor):
        assert eventually(lambda: orphan.exit_code() == 0)
        assert not is_listening(postgres.url)
    assert "unexpectedly" not in postgres.process.log.read_text()[began:]


def test_postgres_data_cut_off_while_it_was_made_is_made_again() -> None:
    with temporary_placement() as placement:
        draft = placement.directory("postgres") / "data.draft"
        draft.mkdir()
        (draft / "PG_VERSION").write_text("18\n")
        with running(postgres_server(placement, log=placement.home / "log")) as child:
            assert child.exit_code() is None
        assert not draft.exists()


def test_postgres_refuses_data_of_another_major_version(placed: Placement) -> None:
    data = postgres_server(placed, log=placed.home / "postgres.log").process.cwd
    version = data / "PG_VERSION"
    before = version.read_text()
    version.write_text("17\n")
    try:
        with pytest.raises(EmbeddedError, match="was made by PostgreSQL 17; this is 18"):
            postgres_server(placed, log=placed.home / "postgres.log")
    finally:
        version.write_text(before)


def test_server_that_cannot_start_shows_the_end_of_its_log(
    postgres: Server, placed: Placement
) -> None:
    port = int(urlsplit(postgres.url).port or 0)
    with socket.create_server(("127.0.0.1", port)):
        child = Child(postgres.process)
        child.start()
        with pytest.raises(
            EmbeddedError, match=r"(?s)postgres did not start.*Address already in use"
        ):
            postgres.wait(child)
        child.stop()


# --- Valkey


def test_valkey_keeps_its_data_and_its_port_after_a_kill(valkey: Server) -> None:
    with running(valkey) as child:
        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            client.set("kept", "yes")
            client.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(int(child.pid or 0), signal.SIGKILL)
        assert eventually(lambda: child.exit_code() is not None)

        child.kill()
        child.start()
        valkey.wait(child)

        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            assert client.get("kept") == b"yes"


# --- placement


def test_data_lie_in_the_runtime_directory_when_the_servers_may_enter_it(
    placed: Placement,
) -> None:
    var = placed.home / "open"
    var.mkdir()
    assert place(var).home == var


@as_root
def test_data_move_out_of_a_directory_the_servers_may_no_longer_enter(
    placed: Placement, bases: Path
) -> None:
    var = placed.home / "closing"
    (var / "postgres").mkdir(parents=True)
    (var / "postgres" / "row").write_text("kept")
    var.chmod(0o700)

    home = place(var).home

    assert home.parent == bases
    assert (home / "postgres" / "row").read_text() == "kept"
    assert (home / "postgres").stat().st_uid == placed.identity.uid
    assert place(var).home == home


@as_root
def test_copied_runtime_directory_gets_data_of_its_own(placed: Placement, bases: Path) -> None:
    original, copy = placed.home / "original", placed.home / "copy"
    original.mkdir(mode=0o700)
    home = place(original).home
    copy.mkdir(mode=0o700)
    (copy / "servers.home").write_text((original / "servers.home").read_text())

    assert place(copy).home != home
    assert place(original).home == home


@as_root
def test_moved_runtime_directory_keeps_its_data(placed: Placement, bases: Path) -> None:
    before, after = placed.home / "before", placed.home / "after"
    before.mkdir(mode=0o700)
    home = place(before).home

    before.rename(after)

    assert place(after).home == home


def test_data_that_are_gone_are_not_replaced_in_silence(placed: Placement) -> None:
    var = placed.home / "bereft"
    var.mkdir()
    (var / "servers.home").write_text(f"{placed.home / 'nowhere'}\n")
    with pytest.raises(EmbeddedError, match=r"which is gone\. Restore it"):
        place(var)


@as_root
def test_base_that_another_user_made_is_not_trusted(placed: Placement, bases: Path) -> None:
    bases.mkdir()
    os.chown(bases, 65534, -1)
    var = placed.home / "private"
    var.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match="No directory can be found"):
        place(var)


@as_root
def test_programs_the_servers_may_not_reach_are_copied(
    placed: Placement, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    can_run = placement_module._can_run
    monkeypatch.setattr(
        placement_module,
        "_can_run",
        lambda program, identity: bases in program.parents and can_run(program, identity),
    )
    server = valkey_server(placed, log=placed.home / "valkey.log")
    assert bases in Path(server.process.argv[0]).parents
    with running(server):
        assert is_listening(server.url)


# --- secrets


def test_credentials_are_made_once_and_readable_by_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = kept_credentials(path)
    assert kept_credentials(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_credentials_gain_what_a_newer_version_needs_and_keep_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text('{"SECRET_KEY": "old"}')
    made = kept_credentials(path)
    assert made["SECRET_KEY"] == "old"
    assert json.loads(path.read_text()) == made


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_credentials_that_cannot_be_read_are_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        kept_credentials(path)
    assert path.read_text() == content


def test_api_key_has_the_form_that_secret_scanners_know(services: dict[str, str]) -> None:
    key = services["EMAILAUTO_DEMO_API_KEY"]
    prefix, public, secret = key.rsplit("_", 2)
    assert prefix == "emauto_live"
    assert (len(public), len(secret)) == (8, 40)
    assert (public + secret).isalnum()
    assert key == key.lower()


# --- python -m emailauto.embedded exec


def execute(*command: str) -> "subprocess.Popen[str]":
    """Start the command line, with everything but the database given so that it is quick."""
    return subprocess.Popen(
        [sys.executable, "-m", "emailauto.embedded", "exec", "--", *command],
        env={**os.environ, **GIVEN, "REDIS_URL": ""},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_exec_passes_the_exit_code_and_stops_the_servers() -> None:
    with execute("sh", "-c", "echo $REDIS_URL; exit 7") as process:
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 7
    assert not is_listening(output.strip())


def test_exec_passes_sigterm_on_and_stops_the_servers() -> None:
    with execute("sh", "-c", "echo $REDIS_URL; exec sleep 60") as process:
        url = process.stdout.readline().strip()
        assert is_listening(url)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert not is_listening(url)


def test_exec_passes_on_a_sigterm_that_comes_while_the_command_is_started() -> None:
    code = (
        "import os, signal, sys\n"
        "from emailauto.embedded import __main__ as program\n"
        "signal.signal(signal.SIGTERM, program._leave)\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "sys.exit(program._run(['sleep', '60'], dict(os.environ)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child then")
def test_exec_that_is_killed_takes_servers_and_command_with_it() -> None:
    with execute("sh", "-c", "echo $$ $REDIS_URL; exec sleep 60") as process:
        pid, url = process.stdout.readline().split()
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            directory = Path(client.config_get("dir")["dir"]).parent
        process.kill()
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert eventually(lambda: not is_listening(url))
    shutil.rmtree(directory)  # what nobody was left to do
