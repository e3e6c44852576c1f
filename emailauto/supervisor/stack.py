"""The order of things: lock, servers, preparation, application, watch, stop."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from emailauto.embedded import embedded_servers, service_urls
from emailauto.embedded.credentials import kept_credentials
from emailauto.embedded.placement import place
from emailauto.files import write_private
from emailauto.orphans import Ledger
from emailauto.processes import Child, Process, tail
from emailauto.supervisor import health, programs
from emailauto.supervisor.announcement import Announcement
from emailauto.supervisor.environment import (
    base_url,
    given_environment,
    reserve_port,
    runtime_directory,
)
from emailauto.supervisor.exceptions import StartError, StopRequested
from emailauto.supervisor.family import Family
from emailauto.supervisor.lock import sole_supervisor
from emailauto.supervisor.signals import Signals

_TICK_SECONDS = 0.1
_READY_SECONDS = 90.0
_HEALTH_SECONDS = 10.0
_HOPELESS_DEATHS = 3
_EMBEDDED_ENV = (
    "DATABASE_URL",
    "REDIS_URL",
    "CELERY_BROKER_URL",
    "SECRET_KEY",
    "ADDRESS_HASH_KEY",
    "WEBHOOK_SECRET",
    "PUBLIC_URL",
    "SANDBOX_BY_DEFAULT",
)


def up(checkout: Path) -> None:
    """Run everything until asked to stop; raise `StartError` or `EmbeddedError` if it cannot."""
    given = given_environment(checkout)
    var = runtime_directory(given, checkout)
    with (
        Signals(watch_parent=given.get("EMAILAUTO_PARENT_WATCH") == "1") as signals,
        sole_supervisor(var),
    ):
        Stack(checkout, var, given, signals).run()


def say(text: str) -> None:
    """Print a line, unbuffered; a closed terminal or pipe is no reason to stop serving."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode())


class Stack:
    """All of emailauto on one machine, in one runtime directory."""

    def __init__(
        self, checkout: Path, var: Path, given: Mapping[str, str], signals: Signals
    ) -> None:
        self._checkout = checkout
        self._var = var
        self._logs = var / "log"
        self._given = given
        self._signals = signals
        self._ledger = Ledger(var / "processes.json")
        self._family = Family(self._ledger, say=say, on_change=self._write_run_file)
        self._announcement: Announcement | None = None

    def run(self) -> None:
        """Start, watch until asked to stop, and stop, whatever happened in between."""
        say(f"emailauto is starting; logs are in {self._logs}")
        self._logs.mkdir(mode=0o700, exist_ok=True)
        if orphans := self._ledger.end_orphans():  # before the port: they may hold it
            say(f"Ended {orphans} processes of an earlier start that was killed.")
        host = self._given.get("HOST") or "127.0.0.1"
        with reserve_port(self._given, host) as reservation:
            try:
                self._watch(self._start(host, reservation.getsockname()[1]))
            except StopRequested:
                say("Stopping …")
            finally:
                (self._var / "run.json").unlink(missing_ok=True)
                self._family.stop(is_hurried=lambda: self._signals.is_hurried)

    def _start(self, host: str, port: int) -> str:
        """Start everything, announce it, and return its URL."""
        url = base_url(host, port)
        environment = self._start_servers(public_url=url)
        workplace = programs.Workplace(self._checkout, self._logs, environment)
        login = self._prepare(programs.prepare(workplace))
        self._family.start(programs.web(workplace, host=host, port=port))
        self._family.start(programs.worker(workplace))
        self._family.start(programs.bulk_worker(workplace))
        self._family.start(programs.beat(workplace))
        self._wait_until_ready(url)
        self._announce(url, port, login, environment)
        return url

    def _start_servers(self, *, public_url: str) -> dict[str, str]:
        """Start the servers that the environment does not name, and complete the environment."""
        servers = embedded_servers(self._given, place(self._var), logs=self._logs)
        started = [(server, self._family.start(server.process)) for server in servers]
        for server, child in started:
            server.wait(child, pause=self._signals.pause)
        made = {
            "PUBLIC_URL": public_url,
            "SANDBOX_BY_DEFAULT": "on",
            **self._kept_credentials(),
            **service_urls(self._given, servers),
        }
        lacking = {name: value for name, value in made.items() if not self._given.get(name)}
        self._write_embedded_env(lacking)
        return {**self._given, **lacking, "EMAILAUTO_VAR": str(self._var)}

    def _kept_credentials(self) -> dict[str, str]:
        path = self._var / "secrets.json"
        try:
            return kept_credentials(path)
        except ValueError as error:
            raise StartError(
                f"{path} cannot be read: {error} Repair it; without its keys neither sessions nor "
                "suppressed addresses are recognised."
            ) from error

    def _write_embedded_env(self, made: Mapping[str, str]) -> None:
        """Tell `manage.py` in other terminals what this start made up; not what was given."""
        lines = [f"{name}={made[name]}\n" for name in _EMBEDDED_ENV if name in made]
        write_private(self._var / "embedded.env", "".join(lines))

    def _prepare(self, process: Process) -> dict[str, str]:
        """Run the preparation to its end; return the admin login it printed."""
        process.log.unlink(missing_ok=True)
        child = Child(process)
        try:
            child.start()
            while (code := child.exit_code()) is None:
                self._signals.pause(_TICK_SECONDS)
        finally:
            child.stop()
        if code != 0:
            raise StartError(f"The preparation failed ({process.log}):\n{tail(process.log)}")
        return _printed_login(process.log)

    def _wait_until_ready(self, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not health.is_ready(url):
            hopeless = self._family.deaths("web") >= _HOPELESS_DEATHS
            if hopeless or time.monotonic() > deadline:
                log = self._logs / "web.log"
                raise StartError(f"The web process does not get ready ({log}):\n{tail(log)}")
            self._signals.pause(min(_TICK_SECONDS, self._family.tend()))

    def _announce(
        self, url: str, port: int, login: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        self._announcement = Announcement(
            url=url,
            port=port,
            api_key=environment["EMAILAUTO_DEMO_API_KEY"],
            admin_login={"password": environment["EMAILAUTO_DEMO_PASSWORD"], **login},
            webhook_secret=environment["WEBHOOK_SECRET"],
        )
        self._write_run_file()
        say(self._announcement.banner(is_port_chosen=bool(self._given.get("PORT"))))

    def _write_run_file(self) -> None:
        if self._announcement is not None:
            pids = {"supervisor": os.getpid(), **self._family.pids}
            write_private(self._var / "run.json", self._announcement.run_file(pids))

    def _watch(self, url: str) -> NoReturn:
        """Restart what dies, and the worker when it lives without working, until asked to stop."""
        ask_at = time.monotonic() + _HEALTH_SECONDS
        while True:
            due = min(self._family.tend(), ask_at - time.monotonic())
            self._signals.pause(due)
            if time.monotonic() >= ask_at:
                self._restart_stuck_worker(url)
                ask_at = time.monotonic() + _HEALTH_SECONDS

    def _restart_stuck_worker(self, url: str) -> None:
        idle = health.worker_idle_seconds(url)
        if idle is not None and health.is_stuck(
            idle,
            worker_uptime=self._family.uptime("worker"),
            broker_uptime=self._family.uptime("valkey"),
        ):
            self._family.restart("worker", f"has done nothing for {idle:.0f} s")


def _printed_login(log: Path) -> dict[str, str]:
    """Return `admin_login` of the JSON object that the preparation printed last."""
    for line in reversed(tail(log).splitlines()):
        with contextlib.suppress(ValueError):
            document = json.loads(line)
            if isinstance(document, dict) and isinstance(document.get("admin_login"), dict):
                return dict(document["admin_login"])
    raise StartError(f"The preparation did not print its JSON object ({log}):\n{tail(log)}")
