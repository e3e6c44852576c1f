"""Real brokers, a consumer as a process, and connections that can be cut."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from django.conf import settings
from django.db import connection, transaction

from emailauto.embedded.server import free_port
from emailauto.processes import Child, Process, signalled_with_parent, tail
from events.consumers import connector
from events.consumers.stop import Stop
from events.consuming import Consumption

ROOT = Path(__file__).resolve().parents[2]
QUEUE, DLQ = "marketing.events", "marketing.events.dlq"
# The mock lets the first member of a group wait for three seconds before it answers; a session
# has to outlast that.
KAFKA_OPTIONS = {"session.timeout.ms": 4000, "heartbeat.interval.ms": 500}

_silent = logging.getLogger("tests.kafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether the condition came true in that time."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(met)


# --- consumers


class StopWhen(Stop):
    """Asked for once `is_done` has said so, between two batches; after a minute in any case."""

    def __init__(self, is_done: Callable[[], bool]) -> None:
        super().__init__()
        self._is_done = is_done
        self._deadline = time.monotonic() + 60.0

    @property
    def is_requested(self) -> bool:
        if self._is_done() or time.monotonic() > self._deadline:
            self._is_requested = True
        return self._is_requested


def consume_until(broker: str, is_done: Callable[[], bool]) -> None:
    """`manage.py consume`, in this process."""
    Consumption(connector(broker), broker=broker, source="api", stop=StopWhen(is_done)).run()


class ConsumerProcess:
    """`manage.py consume`, as a process of its own on the tests' database."""

    def __init__(self, log: Path, *arguments: str, port: int = 0, **environment: str) -> None:
        """`port` leads to PostgreSQL, if not its own."""
        self.log = log
        with log.open("ab") as output:
            self._running = subprocess.Popen(
                [sys.executable, "manage.py", "consume", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "DATABASE_URL": database_url(port),
                    "REDIS_URL": settings.REDIS_URL,
                    "CELERY_BROKER_URL": "memory://",
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=signalled_with_parent(signal.SIGKILL),
            )

    def __enter__(self) -> "ConsumerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        self.kill()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._running.send_signal(number)

    def exit_code(self, seconds: float = 60.0) -> int:
        return self._running.wait(timeout=seconds)

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()

    @property
    def is_running(self) -> bool:
        return self._running.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")


def database_url(port: int = 0) -> str:
    """Where the database of this test run is."""
    given = connection.settings_dict
    user = ":".join(filter(None, (given["USER"], given["PASSWORD"])))
    return f"postgres://{user}@{given['HOST']}:{port or given['PORT']}/{given['NAME']}"


# --- connections


class Proxy:
    """A port that leads to another one, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_cut = False
        self._passes = threading.Event()
        self._passes.set()
        self._holds = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection, and each new one."""
        self._is_cut = True
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def stall(self) -> None:
        """Take everything, and pass nothing on."""
        self._passes.clear()

    @property
    def holds(self) -> bool:
        """Whether anybody has said something since it was stalled, and waits for an answer."""
        return self._holds.is_set()

    def close(self) -> None:
        self.cut()
        self._passes.set()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._passes.is_set():
                    self._holds.set()
                self._passes.wait()
                if self._is_cut:
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._open.discard(each)
        source.close()


@contextmanager
def insertions_held_up() -> Iterator[Callable[[], bool]]:
    """Inside, whoever inserts events waits; yields whether somebody does. A consumer cannot run
    away from its test, and is in the middle of a batch."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE events_event IN SHARE MODE")

        def is_waited_for() -> bool:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
                " AND relation = 'events_event'::regclass)"
            )
            return bool(cursor.fetchone()[0])

        yield is_waited_for


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    between = Proxy(port)
    try:
        yield between
    finally:
        between.close()


# --- Kafka


class Kafka:
    """librdkafka's own cluster, which speaks the protocol on loopback. Topics make themselves."""

    def __init__(self) -> None:
        self._cluster = Producer(
            {"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "logger": _silent}
        )
        brokers = self._cluster.list_topics(timeout=60).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._options = {"bootstrap.servers": self.servers, "logger": _silent}
        self._producer = Producer(self._options)

    def send(self, *bodies: bytes, topic: str = QUEUE, key: bytes | None = None) -> None:
        for body in bodies:
            self._producer.produce(topic, body, key)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0

    def messages(self, topic: str) -> list[Message]:
        """Everything that lies there."""
        reader = Consumer({**self._options, "group.id": "reader", "enable.auto.commit": False})
        try:
            places = [TopicPartition(topic, number, 0) for number in self._partitions(topic)]
            reader.assign(places)
            left = self.end(topic)
            found: list[Message] = []
            while len(found) < left:
                found += [each for each in reader.consume(100, 1.0) if each.error() is None]
            return found
        finally:
            reader.close()

    def end(self, topic: str = QUEUE) -> int:
        """How many messages were ever put there."""
        return sum(
            self._observe(
                lambda reader: [
                    reader.get_watermark_offsets(TopicPartition(topic, number), timeout=60)[1]
                    for number in self._partitions(topic)
                ]
            )
        )

    def committed(self, topic: str = QUEUE, group: str = "emailauto") -> int:
        """How many of them the consumers are done with."""
        places = [TopicPartition(topic, number) for number in self._partitions(topic)]
        found = self._observe(lambda reader: reader.committed(places, timeout=60), group)
        return sum(max(place.offset, 0) for place in found)

    def close(self) -> None:
        """The cluster goes with the last reference to it."""
        del self._producer, self._cluster

    def _partitions(self, topic: str) -> list[int]:
        return list(self._producer.list_topics(topic, timeout=60).topics[topic].partitions)

    def _observe(self, look: Callable[[Consumer], Sequence[Any]], group: str = "look") -> Any:
        reader = Consumer({**self._options, "group.id": group, "enable.auto.commit": False})
        try:
            return look(reader)
        finally:
            reader.close()


# --- RabbitMQ

_SERVER = shutil.which(
    "rabbitmq-server",
    # Debian's /usr/sbin/rabbitmq-server changes the user and forgets the environment.
    path=os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", "")]),
)
_EPMD = shutil.which("epmd")
has_rabbitmq = bool(_SERVER and _EPMD)


@contextmanager
def rabbitmq(home: Path) -> Iterator[int]:
    """A server of our own, with its own name service and everything it writes in `home`; yields
    its port."""
    port, distribution, names = free_port(), free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"emailauto-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
        "RABBITMQ_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    assert _SERVER is not None
    assert _EPMD is not None
    name_service = (_EPMD, "-port", str(names), "-address", "127.0.0.1")
    with (
        running("epmd", name_service, environment, home, names),
        running("rabbitmq", (_SERVER,), environment, home, port),
    ):
        yield port


# --- SQS

AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def sqs(home: Path) -> Iterator[int]:
    """moto's server; yields its port."""
    port = free_port()
    command = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port))
    with running("moto", command, {**os.environ, **AWS}, home, port):
        yield port


@contextmanager
def running(
    name: str, command: Sequence[str], environment: dict[str, str], home: Path, port: int
) -> Iterator[None]:
    """Run a server in `home` until the end of the block; enter it when the port answers."""
    log = home / f"{name}.log"
    child = Child(Process(name, tuple(command), environment, home, log, grace=20.0))
    child.start()
    try:
        assert eventually(lambda: _answers(port) or child.exit_code() is not None), tail(log)
        assert child.exit_code() is None, tail(log)
        yield
    finally:
        child.stop()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
