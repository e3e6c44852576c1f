"""Our way of making Anymail's calls: the same calls."""

import json
from typing import Any

import pytest
from anymail.backends import base_requests
from django.core.mail import EmailMultiAlternatives
from django.utils.module_loading import import_string

from delivery import mime
from delivery.backends import batches
from delivery.backends.http import guarded
from delivery.outbound import OutboundEmail
from delivery.providers import TRAITS

HTTP = [kind for kind in TRAITS if kind != "ses"]


def backend(kind: str) -> Any:
    traits = TRAITS[kind]
    options = dict.fromkeys(traits.secrets, "a key")
    if traits.needs_api_url:
        options["api_url"] = "http://127.0.0.1:1/"
    return guarded(import_string(traits.backend))(**options)


def anymails(kind: str, mail: Any) -> Any:
    """The request Anymail itself would make."""
    ours = backend(kind)
    (theirs,) = {
        cls
        for cls in type(ours).__mro__
        if issubclass(cls, base_requests.AnymailRequestsBackend)
        and cls.__module__.startswith("anymail.")
        and cls is not base_requests.AnymailRequestsBackend
    }
    payload = theirs.build_message_payload(ours, mail, ours.send_defaults)
    return payload.get_request_params(ours.api_url)


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize(
    ("sender", "to"),
    [
        ("Shop <shop@example.com>", "ada@example.com"),
        ('"Müller, Söhne & Co." <shop@bücher.example>', "o'neil+news@sub.example.com"),
        ("shop@example.com", '"odd one"@example.com'),
        ("Shop <shop@example.com>", "ada@bücher.example"),
    ],
)
def test_call_is_the_one_anymail_makes(kind: str, sender: str, to: str) -> None:
    def made(cls: Any) -> Any:
        mail = cls(
            "Grüße, Ada",
            "Hello Ada\n",
            sender,
            [to],
            reply_to=['"Help, please" <help@example.com>'],
            headers={
                "Message-ID": "<1@example.com>",
                "List-ID": mime.mailbox("News", "news.example.com"),
                "X-Number": "7",
            },
        )
        mail.attach_alternative("<h1>Grüße</h1>", "text/html")
        mail.metadata = {"message_uuid": "7"}
        mail.tags = ["welcome"]
        return mail

    door = backend(kind)
    if kind in ("postal", "mailersend"):
        # They take no metadata, see `Traits.has_metadata`.
        made_before = made

        def made(cls: Any) -> Any:
            mail = made_before(cls)
            del mail.metadata
            return mail

    theirs = anymails(kind, made(EmailMultiAlternatives))
    ours = door.request(door.prepare(made(EmailMultiAlternatives)))
    assert ours.url.split("?")[0] == theirs["url"]
    for name, value in (theirs["headers"] or {}).items():
        assert ours.headers[name] == value
    if isinstance(theirs["data"], str):
        assert known(json.loads(ours.body)) == known(json.loads(theirs["data"]))
    else:
        assert b"Gr%C3%BC" in ours.body


def known(payload: Any) -> Any:
    """Without what is random."""
    return json.loads(json.dumps(payload).replace(str(anymail_id(payload)), "-"))


def anymail_id(payload: Any) -> Any:
    try:
        return payload["personalizations"][0]["custom_args"]["anymail_id"]
    except (LookupError, TypeError):
        return "nothing random"


@pytest.mark.parametrize("kind", ["resend", "brevo"])
def test_key_is_the_messages_own(kind: str) -> None:
    mail = OutboundEmail("Hello", "Hello", "shop@example.com", ["ada@example.com"])
    mail.message_uuid = "0198"  # type: ignore[assignment]
    door = backend(kind)
    request = door.request(door.prepare(mail))
    assert "0198" in (request.headers.get("Idempotency-Key") or request.body.decode())


def test_who_takes_many_mails_is_known_how() -> None:
    known = {traits.backend for traits in TRAITS.values() if traits.batch is not None}
    assert known == set(batches.BATCHINGS)
