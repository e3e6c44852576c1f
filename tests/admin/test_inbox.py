"""The sandbox inbox: a mail as its recipient would see it, without what it could do."""

from email.message import EmailMessage

from django.test import Client
from django.urls import reverse

from delivery.models import SandboxMail
from tests.admin.rows import EVIL


def _mail(html: str = "", text: str = "Hello Ada", **fields: str) -> SandboxMail:
    email = EmailMessage()
    email["Subject"] = "Hello"
    email["X-Note"] = "<b>bold</b>"
    email.set_content(text)
    if html:
        email.add_alternative(html, subtype="html")
    values = {"from_email": "shop@example.com", "to_email": "ada@example.com", "subject": "Hello"}
    return SandboxMail.objects.create(raw=email.as_bytes(), **{**values, **fields})


def test_html_part_stands_alone_and_its_links_open_a_new_tab(operator: Client) -> None:
    mail = _mail(f"<html><head><title>x</title></head><body>{EVIL}</body></html>")
    page = operator.get(reverse("admin:delivery_sandboxmail_change", args=[mail.pk])).text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert EVIL not in page
    response = operator.get(reverse("admin:delivery_sandboxmail_document", args=[mail.pk]))
    assert '<base target="_blank">' in response.text
    assert EVIL not in response.text
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "allow-scripts" not in policy + page
    assert "allow-same-origin" not in policy + page


def test_page_shows_text_headers_and_source(operator: Client) -> None:
    mail = _mail()
    page = operator.get(reverse("admin:delivery_sandboxmail_change", args=[mail.pk])).text
    assert "This mail has no HTML part" in page
    assert "X-Note" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


def test_download_is_the_mail_byte_for_byte(operator: Client) -> None:
    mail = _mail("<p>Hello</p>")
    response = operator.get(reverse("admin:delivery_sandboxmail_eml", args=[mail.pk]))
    assert response.content == bytes(mail.raw)
    assert response["Content-Disposition"] == f'attachment; filename="mail-{mail.pk}.eml"'


def test_mail_that_is_no_mail_still_has_its_page(operator: Client) -> None:
    raw = b"Content-Type: text/html; charset=klingon\r\n\r\n\xff\xfe<p>Hello</p>"
    mail = _mail()
    SandboxMail.objects.filter(pk=mail.pk).update(raw=raw)
    for name in ("change", "document", "eml"):
        url = reverse(f"admin:delivery_sandboxmail_{name}", args=[mail.pk])
        assert operator.get(url).status_code == 200


def test_mail_is_not_shown_to_strangers(client: Client, db: None) -> None:
    mail = _mail()
    for name in ("change", "document", "eml"):
        url = reverse(f"admin:delivery_sandboxmail_{name}", args=[mail.pk])
        assert client.get(url).status_code == 302
