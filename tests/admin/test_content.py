"""Templates: versions, the draft's editor and its preview."""

from typing import Any

from django.test import Client
from django.urls import reverse

from content.models import Template, TemplateVersion
from content.services import open_draft
from tests.admin.rows import EVIL
from tests.factories import TemplateFactory

WORDING = {"subject": "Hi {{ user.name }}", "preheader": "", "html": "<p>Hi</p>", "text": ""}


def _editor(version: TemplateVersion) -> str:
    return reverse("admin:content_templateversion_change", args=[version.pk])


def _preview(version: TemplateVersion) -> str:
    return reverse("admin:content_templateversion_preview", args=[version.pk])


def test_new_template_leads_to_its_first_draft(operator: Client) -> None:
    form = {"name": "Welcome", "key": "welcome"}
    response = operator.post(reverse("admin:content_template_add"), form)
    draft = Template.objects.get().versions.get()
    assert response["Location"] == _editor(draft)
    assert operator.get(_editor(draft)).status_code == 200


def test_draft_is_opened_once_and_saved_without_being_sent(operator: Client) -> None:
    template = TemplateFactory()
    url = reverse("admin:content_template_do", args=[template.pk, "open-draft"])
    draft_url = operator.post(url)["Location"]
    draft = template.versions.get(published_at=None)
    assert draft_url == _editor(draft)
    operator.post(draft_url, {**WORDING, "_save": "1"})
    template.refresh_from_db()
    draft.refresh_from_db()
    assert draft.html == "<p>Hi</p>"
    assert template.published != draft


def test_publish_makes_the_draft_what_is_sent(operator: Client) -> None:
    template = TemplateFactory()
    draft = open_draft(template)
    operator.post(_editor(draft), {**WORDING, "_publish": "1"})
    template.refresh_from_db()
    assert template.published == draft


def test_problems_stand_at_their_field_and_nothing_is_lost(operator: Client) -> None:
    draft = open_draft(TemplateFactory())
    page = operator.post(_editor(draft), {**WORDING, "html": "<p>{{ oops", "_publish": "1"}).text
    before, _, after = page.partition('name="html"')
    assert "is never closed" not in before
    assert "is never closed" in after
    assert "&lt;p&gt;{{ oops" in after
    draft.refresh_from_db()
    assert draft.published_at is None


def test_published_version_is_read_only(operator: Client) -> None:
    version = TemplateFactory().published
    assert "Save draft" not in operator.get(_editor(version)).text
    assert operator.post(_editor(version), {**WORDING, "_save": "1"}).status_code == 403
    delete = reverse("admin:content_templateversion_delete", args=[version.pk])
    assert operator.post(delete, {"post": "yes"}).status_code == 403
    template_delete = reverse("admin:content_template_delete", args=[version.template_id])
    assert operator.post(template_delete, {"post": "yes"}).status_code == 403


def test_draft_can_be_thrown_away(operator: Client) -> None:
    draft = open_draft(TemplateFactory())
    delete = reverse("admin:content_templateversion_delete", args=[draft.pk])
    assert operator.post(delete, {"post": "yes"}).status_code == 302
    assert not TemplateVersion.objects.filter(pk=draft.pk).exists()


def test_preview_shows_unsaved_words_over_given_data(operator: Client) -> None:
    draft = open_draft(TemplateFactory())
    form = {**WORDING, "html": "<p>Hi {{ who }}</p>", "sample": '{"who": "Zoë"}'}
    assert "Hi Zoë" in operator.post(_preview(draft), form).text
    draft.refresh_from_db()
    assert "who" not in draft.html


def test_preview_is_a_document_that_can_do_nothing(operator: Client) -> None:
    draft = open_draft(TemplateFactory())
    for response in (operator.get(_preview(draft)), operator.post(_preview(draft), WORDING)):
        policy = response["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src * data:; style-src 'unsafe-inline';")
        assert policy.endswith("sandbox")
        assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert 'name="preview" sandbox src=' in operator.get(_editor(draft)).text


def test_preview_names_what_is_wrong(operator: Client) -> None:
    draft = open_draft(TemplateFactory())

    def problem(**fields: Any) -> str:
        form = {**WORDING, "part": "head", **fields}
        return operator.post(_preview(draft), form).json()["problem"]

    assert problem() == ""
    assert "never closed" in problem(html="{{ x")
    assert "not valid JSON" in problem(sample="{")
    assert "not a JSON object" in problem(sample="[1]")
    assert EVIL not in operator.post(_preview(draft), {**WORDING, "html": f"{{% {EVIL} %}}"}).text


def test_preview_is_not_for_strangers_and_its_words_not_for_those_who_only_view(
    viewer: Client, client: Client
) -> None:
    draft = open_draft(TemplateFactory())
    assert client.get(_preview(draft)).status_code == 302
    assert viewer.get(_preview(draft)).status_code == 200
    assert viewer.post(_editor(draft), {**WORDING, "_save": "1"}).status_code == 403
    url = reverse("admin:content_template_do", args=[draft.template_id, "draft"])
    assert viewer.post(url).status_code == 403


def test_template_page_lists_its_versions(operator: Client) -> None:
    template = TemplateFactory()
    open_draft(template)
    page = operator.get(reverse("admin:content_template_change", args=[template.pk])).text
    assert "is sent" in page
    assert "draft" in page
    assert "Edit the draft" in page
