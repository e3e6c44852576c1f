"""RFC 8058 as mailbox providers, scanners and vandals do it, and what every page keeps to."""

import secrets
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.clock import now
from common.ids import uuid7
from common.signing import read_uuid, sign_uuid
from delivery.links import CONFIRM, PERSONAL_DATA, PREFERENCES, UNSUBSCRIBE, VIEW
from delivery.models import Message
from suppression.models import Suppression
from tests.factories import MessageFactory, TopicFactory
from tests.preferences.pages import FORM, assert_private, get, path_of, post, strict_client

pytestmark = pytest.mark.django_db

ONE_CLICK = "List-Unsubscribe=One-Click"
PURPOSES = (UNSUBSCRIBE, PREFERENCES, VIEW, CONFIRM, PERSONAL_DATA)


@pytest.fixture
def message() -> Message:
    return MessageFactory(stream="marketing", topic=TopicFactory(), state="sent")


def is_unsubscribed() -> bool:
    return Suppression.objects.filter(scope="marketing", reason="unsubscribe").count() == 1


@pytest.mark.parametrize("host", ["old-shop.example", "127.0.0.1:9", "evil.example"])
@pytest.mark.parametrize("secure", [False, True])
def test_one_click_works_on_any_host_without_redirect(
    message: Message, host: str, secure: bool, settings: Any
) -> None:
    settings.PUBLIC_URL = "https://mail.example.com"
    settings.ALLOWED_HOSTS = ["mail.example.com"]
    settings.SECURE_SSL_REDIRECT = True
    path = path_of(message, UNSUBSCRIBE)
    response = strict_client().post(
        path, ONE_CLICK, content_type=FORM, secure=secure, headers={"host": host}
    )
    assert (response.status_code, response.content) == (200, b"Unsubscribed.\n")
    assert is_unsubscribed()


def test_pages_are_not_made_from_the_host(message: Message) -> None:
    for purpose in (UNSUBSCRIBE, PREFERENCES, VIEW):
        response = get(message, purpose, headers={"host": "evil.example"})
        assert response.status_code == 200
        assert "evil.example" not in response.content.decode()


def test_one_click_in_a_mail_of_ten_years_ago_after_the_key_was_changed(
    message: Message, settings: Any
) -> None:
    Message.objects.update(created_at=now() - timedelta(days=3652))
    path = path_of(message, UNSUBSCRIBE)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another one, of ten years later"
    assert strict_client().post(path, ONE_CLICK, content_type=FORM).status_code == 200
    assert is_unsubscribed()


def test_double_post_is_one_unsubscribe(message: Message) -> None:
    for _ in range(2):
        assert post(message, UNSUBSCRIBE, ONE_CLICK, content_type=FORM).status_code == 200
    assert is_unsubscribed()
    assert message.contact.consents.count() == 2  # of the topic, and of marketing as a whole


@pytest.mark.parametrize("end", ["", "\r\n", "\n", " "])
@pytest.mark.parametrize(
    "kind",
    [
        *(FORM, f"{FORM}; charset=UTF-8", f"{FORM};charset=us-ascii"),
        *(f"{FORM}; charset=iso-8859-1", f"{FORM}; charset=bogus", "text/plain", ""),
    ],
)
def test_one_click_is_heard_in_whatever_dress(message: Message, kind: str, end: str) -> None:
    body = (ONE_CLICK + end).encode()
    client, path = strict_client(), path_of(message, UNSUBSCRIBE)
    assert client.generic("POST", path, body, content_type=kind).status_code == 200
    assert is_unsubscribed()


def test_one_click_in_multipart_may_end_with_a_line_end(message: Message) -> None:
    assert post(message, UNSUBSCRIBE, {"List-Unsubscribe": "One-Click\r\n"}).status_code == 200
    assert is_unsubscribed()


MALFORMED = [
    ("multipart/form-data", b"List-Unsubscribe=One-Click"),
    ("multipart/form-data; boundary=" + "x" * 300, b"--x\r\n"),
    ("multipart/form-data; boundary=\xe9", b"--x\r\n"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n"),
    ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a'),
    ("multipart/form-data; boundary=x", b"\x00" * 1000),
    (FORM, b"&".join(b"a%d=1" % n for n in range(2000))),
    (FORM, b"%ff%fe=%00&List-Unsubscribe=\xff"),
    ("application/json", b'{"List-Unsubscribe": "One-Click"}'),
    ("", b""),
]


@pytest.mark.parametrize(("kind", "body"), MALFORMED)
@pytest.mark.parametrize("purpose", [UNSUBSCRIBE, PREFERENCES])
def test_malformed_body_is_400_and_changes_nothing(
    message: Message, purpose: str, kind: str, body: bytes
) -> None:
    client = strict_client()
    client.raise_request_exception = True
    response = client.generic("POST", path_of(message, purpose), body, content_type=kind)
    assert response.status_code == 400
    assert_private(response)
    assert not Suppression.objects.exists()


def test_random_tokens_never_hit_and_ask_nothing_of_the_database() -> None:
    with CaptureQueriesContext(connection) as queries:
        hits = [t for _ in range(100_000) if read_uuid(UNSUBSCRIBE, t := secrets.token_urlsafe(32))]
        assert strict_client().get(f"/u/{secrets.token_urlsafe(32)}").status_code == 404
    assert not hits
    assert len(queries) == 0


def test_token_of_one_purpose_or_message_is_good_for_no_other(message: Message) -> None:
    for purpose in PURPOSES:
        token = sign_uuid(purpose, message.pk)
        assert [p for p in PURPOSES if read_uuid(p, token) is not None] == [purpose]
        swapped = sign_uuid(purpose, uuid7())[:21] + token[21:]
        assert read_uuid(purpose, swapped) is None


@pytest.mark.parametrize("letter", "upvcd")
@pytest.mark.parametrize("method", ["get", "head", "post", "put", "options"])
def test_no_page_sets_a_cookie_or_heeds_one(message: Message, letter: str, method: str) -> None:
    purposes = dict(zip("upvcd", PURPOSES, strict=True))
    for token in (sign_uuid(purposes[letter], message.pk), "nonsense"):
        client = strict_client()
        client.cookies.load({"sessionid": "stolen", "csrftoken": "x", "django_language": "de"})
        response = getattr(client, method)(f"/{letter}/{token}")
        assert response.status_code in (200, 400, 404, 405, 410)
        assert "Set-Cookie" not in response
        assert not response.cookies
        assert "Cookie" not in response.get("Vary", "")
        if response.status_code != 405:
            assert_private(response)
            assert response.get("Content-Language", "en") == "en"


@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_looking_writes_nothing(message: Message, method: str, purpose: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        getattr(strict_client(), method)(path_of(message, purpose))
    assert not [q["sql"] for q in queries if not q["sql"].startswith("SELECT")]
