"""The sink, talked to by Python's own SMTP client."""

import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emailauto.embedded.server import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def accepted(tmp_path: Path) -> Path:
    return tmp_path / "accepted"


@pytest.fixture
def port(accepted: Path) -> Iterator[int]:
    chosen = free_port()
    command = [sys.executable, "-m", "bench.sink", str(chosen), str(accepted)]
    with subprocess.Popen(command, cwd=ROOT) as sink:
        yield chosen
        sink.terminate()


def connect(port: int) -> smtplib.SMTP:
    deadline = time.monotonic() + 20
    while True:
        try:
            return smtplib.SMTP("127.0.0.1", port)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the sink does not listen"
            time.sleep(0.02)


def test_each_recipient_of_an_accepted_mail_is_noted_with_the_time(
    port: int, accepted: Path
) -> None:
    before = time.monotonic_ns()
    with connect(port) as client:
        client.sendmail("a@example.com", ["b@example.com", "c@example.com"], "Subject: x\r\n\r\n.y")
        client.sendmail("a@example.com", ["d@example.com"], "Subject: x\r\n\r\n" + "z" * 100_000)
    after = time.monotonic_ns()
    lines = [line.split() for line in accepted.read_text().splitlines()]
    assert [address for _, address in lines] == ["b@example.com", "c@example.com", "d@example.com"]
    assert all(before <= int(moment) <= after for moment, _ in lines)


def test_commands_sent_at_once_are_all_answered(port: int, accepted: Path) -> None:
    with connect(port) as client:
        client.ehlo()
        client.send(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
            b"Subject: x\r\n\r\nbody\r\n.\r\nNOOP\r\n"
        )
        assert [client.getreply()[0] for _ in range(5)] == [250, 250, 354, 250, 250]
    assert [line.split()[1] for line in accepted.read_text().splitlines()] == ["b@example.com"]
