"""Drafts, publication, immutability."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import ProtectedError

from content.exceptions import CannotPublish, VersionIsFinal
from content.models import Template, TemplateVersion
from content.services import open_draft, publish_version
from delivery.models import Message
from tests.content.helpers import configure_templates
from tests.factories import ContactFactory

pytestmark = pytest.mark.django_db


def _template(key: str = "welcome") -> Template:
    return Template.objects.create(key=key, name=key.capitalize())


def _draft(template: Template | None = None, **wording: str) -> TemplateVersion:
    draft = open_draft(template or _template())
    for part, text in {"subject": "Hello", "html": "<p>Hello {{ name }}</p>", **wording}.items():
        setattr(draft, part, text)
    draft.save()
    return draft


def _published(template: Template | None = None, **wording: str) -> TemplateVersion:
    return publish_version(_draft(template, **wording), by=None)


# --- Drafts -------------------------------------------------------------------------------


def test_first_draft_is_empty_and_number_one() -> None:
    draft = open_draft(_template())
    assert (draft.number, draft.subject, draft.html, draft.published_at) == (1, "", "", None)


def test_draft_is_opened_once() -> None:
    template = _template()
    assert open_draft(template) == open_draft(template)


def test_draft_copies_the_published_wording() -> None:
    version = _published(subject="S", html="<p>H</p>", text="T", preheader="P")
    draft = open_draft(version.template)
    assert draft.number == 2
    assert (draft.subject, draft.html, draft.text, draft.preheader) == ("S", "<p>H</p>", "T", "P")


def test_draft_follows_the_stored_publication_not_the_copy_in_memory() -> None:
    template = _template()
    _published(Template.objects.get(pk=template.pk), subject="Newer")
    assert open_draft(template).subject == "Newer"


# --- Publication --------------------------------------------------------------------------


def test_publication_is_dated_signed_and_pointed_to() -> None:
    user = User.objects.create(username="marketer")
    draft = _draft()
    version = publish_version(draft, by=user)
    assert version.pk == draft.pk
    assert version.published_at is not None
    assert version.published_by == user
    assert version.template.published == version
    assert Template.objects.get().published == version


def test_publication_takes_what_is_stored() -> None:
    draft = _draft()
    draft.html = "<p {{ broken"
    assert publish_version(draft, by=None).html == "<p>Hello {{ name }}</p>"


def test_newer_publication_replaces_the_older_and_keeps_it() -> None:
    first = _published()
    second = _published(first.template, subject="Second")
    assert Template.objects.get().published == second
    assert [v.number for v in first.template.versions.all()] == [2, 1]


def test_second_publication_of_a_version_is_an_error() -> None:
    draft = _draft()
    publish_version(draft, by=None)
    published_at = TemplateVersion.objects.get().published_at
    with pytest.raises(CannotPublish, match="Version 1 is already published") as refused:
        publish_version(draft, by=None)
    assert refused.value.problems == [("", "Version 1 is already published.")]
    assert TemplateVersion.objects.get().published_at == published_at


@pytest.mark.parametrize(
    ("wording", "field", "message"),
    [
        ({"subject": ""}, "subject", "is empty"),
        ({"subject": "{{ nothing }}"}, "subject", "is empty with this data (without data)"),
        ({"subject": "{% if %}"}, "subject", "line 1: missing expression"),
        ({"preheader": "{{ x | nope }}"}, "preheader", "line 1: unknown filter 'nope'"),
        ({"html": ""}, "html", "is empty"),
        ({"html": " \n"}, "html", "is empty"),
        ({"html": "<p>\n{% if x %}"}, "html", "expected tag endif"),
        ({"html": "<p {{ x }}>"}, "html", "line 1: a variable cannot stand inside a tag"),
        ({"html": "<a href='{{ x }}"}, "html", "line 1: a tag is never closed"),
        ({"html": "{% include 'x' %}"}, "html", "line 1: unexpected tag 'include'"),
        ({"html": "<p>" + "x" * 99_000}, "html", "bytes without data, 100000 are allowed"),
        ({"html": "{% for i in (1..99999) %}{% endfor %}"}, "html", "a range is too long"),
        ({"html": "{{ order.total | split: '' | sum | divided_by: 0 }}"}, "html", "cannot use"),
        ({"text": "{% for %}"}, "text", "line 1: "),
        ({"text": "{{ 1 | divided_by: order.nothing }}"}, "text", "(without data)"),
    ],
)
def test_version_with_problems_is_not_published(wording: Any, field: str, message: str) -> None:
    draft = _draft(**wording)
    with pytest.raises(CannotPublish) as refused:
        publish_version(draft, by=None)
    assert field in [problem[0] for problem in refused.value.problems]
    assert message in str(refused.value)
    assert not TemplateVersion.objects.filter(published_at__isnull=False).exists()
    assert Template.objects.get().published is None


def test_problems_of_all_parts_are_listed() -> None:
    draft = _draft(subject="{% a %}", preheader="{% b %}", html="{% c %}", text="{% d %}")
    with pytest.raises(CannotPublish) as refused:
        publish_version(draft, by=None)
    assert [field for field, _ in refused.value.problems] == [
        "subject",
        "preheader",
        "html",
        "text",
    ]


# --- Immutability -------------------------------------------------------------------------


def test_published_version_is_not_saved_again() -> None:
    version = _published()
    version.html = "<p>Other</p>"
    with pytest.raises(VersionIsFinal, match="is published; open a draft"):
        version.save()
    assert TemplateVersion.objects.get().html == "<p>Hello {{ name }}</p>"


def test_draft_read_before_its_publication_is_not_saved_after_it() -> None:
    draft = _draft()
    publish_version(draft, by=None)
    draft.html = "<p>Other</p>"
    with pytest.raises(VersionIsFinal):
        draft.save()
    stored = TemplateVersion.objects.get()
    assert stored.published_at is not None
    assert stored.html == "<p>Hello {{ name }}</p>"


@pytest.mark.parametrize(
    "change",
    [
        lambda version: version.delete(),
        lambda version: TemplateVersion.objects.all().delete(),
        lambda version: version.template.versions.all().delete(),
        lambda version: TemplateVersion.objects.update(html="x"),
        lambda version: TemplateVersion.objects.filter(pk=version.pk).update(subject="x"),
        lambda version: TemplateVersion.objects.bulk_update([version], ["text"]),
    ],
)
def test_published_version_is_neither_changed_nor_deleted(
    change: Callable[[TemplateVersion], Any],
) -> None:
    version = _published()
    with pytest.raises(VersionIsFinal), transaction.atomic():
        change(version)
    assert TemplateVersion.objects.get().subject == "Hello"


def test_template_with_a_published_version_is_not_deleted() -> None:
    version = _published()
    with pytest.raises(ProtectedError):
        version.template.delete()


def test_draft_may_be_changed_and_deleted() -> None:
    draft = _draft()
    draft.html = "<p>Other</p>"
    draft.save()
    TemplateVersion.objects.update(text="x")
    draft.delete()
    assert not TemplateVersion.objects.exists()


# --- Without versioning -------------------------------------------------------------------


def test_superseded_versions_are_kept_with_versioning() -> None:
    first = _published()
    _published(first.template)
    assert TemplateVersion.objects.count() == 2


def test_superseded_version_is_deleted_without_versioning(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_templates(monkeypatch, versioning=False)
    first = _published()
    second = _published(first.template)
    assert list(TemplateVersion.objects.all()) == [second]


def test_superseded_version_that_was_sent_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_templates(monkeypatch, versioning=False)
    first = _published()
    Message.objects.create(
        dedupe_key="x", contact=ContactFactory(), stream="marketing", template_version=first
    )
    second = _published(first.template)
    third = _published(first.template)
    assert set(TemplateVersion.objects.all()) == {first, third}
    assert second.pk not in TemplateVersion.objects.values_list("pk", flat=True)


def test_draft_and_other_templates_survive_without_versioning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure_templates(monkeypatch, versioning=False)
    other = _published(_template("other"))
    first = _published()
    second = _published(first.template)
    draft = open_draft(first.template)
    assert set(TemplateVersion.objects.all()) == {other, second, draft}


# --- At the same time ---------------------------------------------------------------------


def _together(action: Callable[[], Any], *, times: int) -> list[Any]:
    """What each of `times` threads got, an exception included."""
    results: list[Any] = []
    barrier = threading.Barrier(times)

    def run() -> None:
        try:
            barrier.wait()
            results.append(action())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.django_db(transaction=True)
def test_draft_opened_by_several_at_once_is_one() -> None:
    template = _template()
    drafts = _together(lambda: open_draft(Template.objects.get(pk=template.pk)).pk, times=5)
    assert len(set(drafts)) == 1
    assert TemplateVersion.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_version_published_by_several_at_once_is_published_once() -> None:
    draft = _draft()
    results = _together(lambda: publish_version(draft, by=None), times=5)
    assert sum(isinstance(result, TemplateVersion) for result in results) == 1
    assert sum(isinstance(result, CannotPublish) for result in results) == 4


@pytest.mark.django_db(transaction=True)
def test_save_and_publication_at_once_leave_a_published_version_untouched() -> None:
    draft = _draft()

    def save() -> None:
        copy = TemplateVersion.objects.get(pk=draft.pk)
        copy.subject += "!"
        copy.save()

    for _ in range(3):
        results = _together(lambda: (publish_version(draft, by=None), save()), times=2)
        assert all(isinstance(result, CannotPublish | VersionIsFinal) for result in results)
    assert TemplateVersion.objects.get().published_at is not None
    assert TemplateVersion.objects.get().subject == "Hello"
