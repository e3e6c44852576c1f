"""Drafting, publishing and loading templates."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max, ProtectedError
from django.db.models.functions import Now

from common.clock import now
from content.exceptions import CannotPublish
from content.lint import find_problems
from content.models import Template, TemplateVersion

__all__ = [
    "CannotPublish",
    "find_wording",
    "load_templates",
    "open_draft",
    "publish_version",
    "published_versions",
]

_KEPT_VERSIONS = 256


def open_draft(template: Template) -> TemplateVersion:
    """The template's draft; when there is none, a new one with the published wording."""
    with transaction.atomic():
        _lock(template)
        draft = template.versions.filter(published_at__isnull=True).first()
        if draft is not None:
            return draft
        template.refresh_from_db(fields=["published"])
        wording = _wording(template.published) if template.published else Wording("", "", "", "")
        return template.versions.create(number=_next_number(template), **asdict(wording))


def publish_version(version: TemplateVersion, *, by: User | None) -> TemplateVersion:
    """Make the stored draft the wording that is sent from now on; returns it as published.

    Raises `CannotPublish` with a list of (field, message). Messages that exist keep the version
    they were made with.
    """
    with transaction.atomic():
        template = _lock(version.template)
        draft = TemplateVersion.objects.select_for_update().get(pk=version.pk)
        if draft.published_at is not None:
            raise CannotPublish([("", f"Version {draft.number} is already published.")])
        if problems := find_problems(draft):
            raise CannotPublish(problems)
        TemplateVersion.objects.filter(pk=draft.pk).update(published_at=Now(), published_by=by)
        _point_to(template, draft)
    _forget_superseded(template)
    return TemplateVersion.objects.select_related("template").get(pk=draft.pk)


def published_versions(ids: Collection[int]) -> dict[int, TemplateVersion]:
    """The published versions with these ids, each read once per process: they never change."""
    if missing := [pk for pk in ids if pk not in _published]:
        _published.update(TemplateVersion.objects.in_bulk(missing))
    found = {pk: _published[pk] for pk in ids}
    while len(_published) > _KEPT_VERSIONS:
        del _published[next(iter(_published))]
    return found


def find_wording(key: str, language: str) -> TemplateVersion:
    """The published version of the template `<key>_<language>`, else of `<key>`. Where there is no
    such template yet it is made of the files; raises `Template.DoesNotExist` without any."""
    for name in (f"{key}_{language}", key):
        template = Template.objects.filter(key=name).select_related("published").first()
        if template is None:
            template = _load_shipped(name)
        if template is not None and template.published is not None:
            return template.published
    raise Template.DoesNotExist(key)


def _load_shipped(key: str) -> Template | None:
    root = Path(settings.BASE_DIR)
    for base in (root / settings.EMAILAUTO.templates.base_dir, root / "templates"):
        directory = base / "emails" / key
        if (directory / "body.html").is_file():
            _load(directory, force=False)
            return Template.objects.select_related("published").get(key=key)
    return None


_published: dict[int, TemplateVersion] = {}


@dataclass(frozen=True, slots=True)
class Wording:
    """What a version says; its parts are named as the model's fields."""

    subject: str
    preheader: str
    html: str
    text: str


def load_templates(base_dir: Path, *, force: bool = False) -> list[Template]:
    """Publish the templates in `<base_dir>/emails/<key>/`; returns those that were published.

    A directory holds `subject.txt` and `body.html`, and perhaps `body.txt`, `preheader.txt` and
    `name.txt`. Only keys the database does not have yet are loaded: from then on the template
    belongs to whoever edits it in the admin, and a deployment never overwrites their words. With
    `force` the files win wherever they differ from what is published; drafts stay as they are.
    Raises `CannotPublish` with the first template that has problems.
    """
    loaded = []
    for directory in sorted((base_dir / "emails").glob("*/")):
        if (directory / "body.html").is_file():
            loaded.append(_load(directory, force=force))
    return [template for template in loaded if template is not None]


def _load(directory: Path, *, force: bool) -> Template | None:
    wording = _read_wording(directory)
    name = _read(directory, "name.txt") or directory.name.replace("_", " ").capitalize()
    with transaction.atomic():
        template, is_new = Template.objects.get_or_create(
            key=directory.name, defaults={"name": name}
        )
        _lock(template)
        template.refresh_from_db(fields=["published"])
        if not is_new and not force:
            return None
        if template.published is not None and _wording(template.published) == wording:
            return None
        _publish_wording(template, wording)
    _forget_superseded(template)
    return template


def _publish_wording(template: Template, wording: Wording) -> None:
    # Not by way of a draft: there may be one already, and it is somebody's work.
    version = TemplateVersion(
        template=template, number=_next_number(template), published_at=None, **asdict(wording)
    )
    if problems := find_problems(version):
        raise CannotPublish([(f"{template.key}/{field}", message) for field, message in problems])
    version.published_at = now()
    version.save()
    _point_to(template, version)


def _read_wording(directory: Path) -> Wording:
    return Wording(
        subject=_read(directory, "subject.txt"),
        preheader=_read(directory, "preheader.txt"),
        html=_read(directory, "body.html"),
        text=_read(directory, "body.txt"),
    )


def _read(directory: Path, name: str) -> str:
    path = directory / name
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _wording(version: TemplateVersion) -> Wording:
    return Wording(version.subject, version.preheader, version.html, version.text)


def _lock(template: Template) -> Template:
    """Numbers are given and publications happen one after the other per template."""
    return Template.objects.select_for_update(no_key=True).get(pk=template.pk)


def _next_number(template: Template) -> int:
    highest = template.versions.aggregate(highest=Max("number"))["highest"]
    return (highest or 0) + 1


def _point_to(template: Template, version: TemplateVersion) -> None:
    template.published = version
    template.save(update_fields=["published"])


def _forget_superseded(template: Template) -> None:
    """Without versioning only what was sent is kept. After the publication and apart from it: a
    message that is made in this moment must not undo it."""
    if settings.EMAILAUTO.templates.versioning:
        return
    superseded = template.versions.filter(published_at__isnull=False).exclude(
        pk=template.published_id or 0
    )
    for version in superseded:
        try:
            with transaction.atomic():
                version.forget()
        except (ProtectedError, IntegrityError):
            continue
