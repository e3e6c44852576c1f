"""Templates that come as files."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from content.exceptions import CannotPublish
from content.models import Template, TemplateVersion
from content.services import load_templates, open_draft, publish_version
from tests.content.helpers import configure_templates

pytestmark = pytest.mark.django_db


def _write(base: Path, key: str, **files: str) -> None:
    directory = base / "emails" / key
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"subject.txt": "Hello", "body.html": "<p>x</p>", **files}.items():
        (directory / name).write_text(text)


def test_files_become_a_published_template(tmp_path: Path) -> None:
    _write(tmp_path, "receipt", **{
        "subject.txt": "Receipt #{{ order.id }}\n",
        "preheader.txt": "Thanks\n",
        "body.txt": "text\n",
        "name.txt": "Receipts\n",
    })  # fmt: skip
    (template,) = load_templates(tmp_path)
    version = template.published
    assert (template.key, template.name) == ("receipt", "Receipts")
    assert version is not None
    assert version.published_at is not None
    assert (version.number, version.subject) == (1, "Receipt #{{ order.id }}")
    assert (version.preheader, version.text, version.html) == ("Thanks", "text", "<p>x</p>")


def test_name_defaults_to_the_key(tmp_path: Path) -> None:
    _write(tmp_path, "abandoned_cart")
    assert load_templates(tmp_path)[0].name == "Abandoned cart"


def test_loading_again_changes_nothing(tmp_path: Path) -> None:
    _write(tmp_path, "receipt")
    load_templates(tmp_path)
    assert load_templates(tmp_path) == []
    assert load_templates(tmp_path, force=True) == []
    assert TemplateVersion.objects.count() == 1


def test_changed_files_wait_for_force(tmp_path: Path) -> None:
    _write(tmp_path, "receipt")
    load_templates(tmp_path)
    _write(tmp_path, "receipt", **{"subject.txt": "Changed"})
    assert load_templates(tmp_path) == []
    assert [t.key for t in load_templates(tmp_path, force=True)] == ["receipt"]
    published = Template.objects.get().published
    assert published is not None
    assert (published.number, published.subject) == (2, "Changed")


def test_words_of_a_marketer_are_never_overwritten(tmp_path: Path) -> None:
    _write(tmp_path, "receipt")
    (template,) = load_templates(tmp_path)
    draft = open_draft(template)
    draft.subject = "Mine"
    draft.save()
    publish_version(draft, by=None)
    _write(tmp_path, "receipt", **{"subject.txt": "Changed"})
    assert load_templates(tmp_path) == []
    published = Template.objects.get().published
    assert published is not None
    assert published.subject == "Mine"


def test_template_begun_in_the_admin_is_left_alone(tmp_path: Path) -> None:
    draft = open_draft(Template.objects.create(key="receipt", name="Mine"))
    _write(tmp_path, "receipt")
    assert load_templates(tmp_path) == []
    assert Template.objects.get().published is None
    assert TemplateVersion.objects.get() == draft


def test_force_keeps_a_draft(tmp_path: Path) -> None:
    _write(tmp_path, "receipt")
    (template,) = load_templates(tmp_path)
    draft = open_draft(template)
    _write(tmp_path, "receipt", **{"subject.txt": "Changed"})
    load_templates(tmp_path, force=True)
    draft.refresh_from_db()
    assert (draft.published_at, draft.subject) == (None, "Hello")
    published = Template.objects.get().published
    assert published is not None
    assert (published.number, published.subject) == (3, "Changed")


def test_broken_file_is_named_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    _write(tmp_path, "good")
    _write(tmp_path, "worse", **{"body.html": "<p {{ x }}>"})
    with pytest.raises(CannotPublish, match=r"worse/html: line 1: a variable cannot stand"):
        load_templates(tmp_path)
    assert [t.key for t in Template.objects.all()] == ["good"]


def test_other_files_and_directories_are_ignored(tmp_path: Path) -> None:
    assert load_templates(tmp_path) == []
    (tmp_path / "emails" / ".git").mkdir(parents=True)
    (tmp_path / "emails" / "notes.txt").write_text("x")
    (tmp_path / "email").mkdir()
    assert load_templates(tmp_path) == []


def test_command_loads_the_demo_templates_once() -> None:
    out = StringIO()
    call_command("load_templates", stdout=out)
    assert out.getvalue().splitlines() == [
        "published abandoned_cart",
        "published confirm_subscription",
        "published confirm_subscription_de",
        "published personal_data",
        "published personal_data_de",
        "published receipt",
        "published welcome",
    ]
    out = StringIO()
    call_command("load_templates", "--force", stdout=out)
    assert out.getvalue() == "nothing to load\n"


def test_command_fails_with_the_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "worse", **{"subject.txt": ""})
    configure_templates(monkeypatch, base_dir=str(tmp_path))
    with pytest.raises(CommandError, match=r"worse/subject"):
        call_command("load_templates")
