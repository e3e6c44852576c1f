"""Not collected: what tests/test_auditor.py runs to see that the auditor's fixture bites."""

import logging

import pytest
from django.conf import settings

from tests.delivery.fakeesp import fake_esp
from tests.factories import MessageFactory

logger = logging.getLogger("delivery.broken")


@pytest.mark.django_db
def test_rows_of_a_rolled_back_test() -> None:
    MessageFactory(state="sent", reason="refused")


@pytest.mark.django_db(transaction=True)
def test_rows_of_a_committed_test() -> None:
    MessageFactory(state="sent", reason="refused")


def test_rows_of_a_test_that_asks_for_the_database_by_a_fixture(db: None) -> None:
    MessageFactory(state="sent", reason="refused")


@pytest.mark.django_db
def test_taken_twice_by_a_provider() -> None:
    message = MessageFactory(state="sent")
    with fake_esp() as esp:
        for _ in range(2):
            esp.take(f"<{message.pk}.75fcbe65@example.com>".encode())


def test_line_with_an_address() -> None:
    logger.info("told", extra={"to": "ada@example.com"})


def test_line_with_a_secret() -> None:
    logger.info("signed with %s", settings.SECRET_KEY)


def test_error_with_a_traceback() -> None:
    _stumble()


@pytest.mark.django_db
@pytest.mark.audited(except_={"I8"}, why="to see the exception made")
def test_rows_that_are_excepted() -> None:
    MessageFactory(state="sent", reason="refused")


@pytest.mark.audited(except_={"I10"}, why="to see the exception made")
def test_traceback_that_is_excepted() -> None:
    _stumble()


@pytest.mark.django_db
@pytest.mark.unaudited("to see the exception made")
def test_rows_that_are_not_audited() -> None:
    MessageFactory(state="sent", reason="refused")


@pytest.mark.django_db
def test_sound_rows() -> None:
    MessageFactory(state="sent")
    logger.error("told without a traceback", extra={"message_uuid": "1"})


def _stumble() -> None:
    try:
        raise RuntimeError
    except RuntimeError:
        logger.exception("stumbled")
