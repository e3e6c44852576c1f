"""A template version and data in, a mail's subject, HTML and text out.

**What a template sees.** Every key at the top of the event's payload (`order`, `cart_id`, `name`,
…) and these, which always win: `user` {id, name, email}, `contact` {name, email, attributes},
`event` {id, type, occurred_at}, `payload` (the whole of it), `sender` {name, email,
postal_address}, `topic` {name}, `reason_line`, and the recipient's own links `unsubscribe_url`,
`preferences_url`, `view_url` and `action_url` (what a mail asks to confirm). The caller builds that
mapping; here it is reduced to plain JSON values first. What is missing prints nothing. A value is
never read as a template.

**How it is kept harmless.** Budget and allow-lists: `sandbox`. Escaping by place: `escaping`.
Subject and preheader become one clean line.

**The frame.** `email/layout.html` and `email/layout.txt` in the templates directory are Liquid as
well, with `{{ body }}` where the version's own HTML or text goes; in the HTML frame `subject` and
`preheader` are known, too. Frame and body run over one context, so a mail is one pass. Footer
lines appear when the context has them: transactional mail has no `unsubscribe_url`.

**How it is run.** Each part is one Python function (`compiled`), with python-liquid behind it
(`running`). Compiled versions are kept per process: they never change, so only the frame can go
stale, for `templates.cache_ttl` seconds at most.
"""

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from liquid.exceptions import (
    LiquidError,
    LiquidSyntaxError,
    LiquidValueError,
    ResourceLimitError,
    UnknownFilterError,
)

from content import sandbox
from content.escaping import place
from content.exceptions import RenderError
from content.models import TemplateVersion
from content.running import Part, part_of, run
from content.text_part import text_from_html, tidy
from content.values import one_line, plain, subject_line

__all__ = ["RenderError", "RenderedEmail", "compile_part", "render"]

_CACHED_VERSIONS = 256
_QUOTES_NO_DATA = (LiquidSyntaxError, ResourceLimitError, UnknownFilterError)
_FRAME_NAMES = ("subject", "preheader")
_BODY = re.compile(r"\{\{-?\s*body\s*-?\}\}")


@dataclass(frozen=True, slots=True)
class RenderedEmail:
    """What is handed to the provider; `subject` is one line, `text` ends with a line break."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class _Compiled:
    subject: Part
    preheader: Part
    html: Part
    text: Part | None
    html_frame: tuple[Part, Part]
    """What stands before the HTML, and behind it."""
    text_frame: tuple[Part, Part]


def render(version: TemplateVersion, context: Mapping[str, Any]) -> RenderedEmail:
    """The version over the data; the same result on every call. Raises `RenderError`."""
    compiled = _compiled(version)
    data = plain(context)
    with _reported("subject"):
        subject = subject_line(run([compiled.subject], data)[0])
    if not subject:
        raise RenderError("is empty with this data", field="subject")
    with _reported("preheader"):
        preheader = one_line(run([compiled.preheader], data)[0])
    with _reported("html"):
        head, foot = compiled.html_frame
        names = dict(zip(_FRAME_NAMES, (subject, preheader), strict=True))
        html_parts = run((head, compiled.html, foot), data, names)
    with _reported("text"):
        text = _text(compiled, data, html_parts[1])
    return RenderedEmail(subject, "".join(html_parts), text)


def compile_part(field: str, source: str) -> Part:
    """One part of a version (`subject`, `preheader`, `html`, `text`), checked as far as that is
    possible without data. Raises `RenderError`."""
    with _reported(field):
        template = sandbox.parse(source)
        if field == "html":
            place(template.nodes, fragment=True)
        return part_of(template)


def _text(compiled: _Compiled, data: dict[str, Any], html_body: str) -> str:
    head, foot = compiled.text_frame
    if compiled.text is not None:
        before, body, behind = run((head, compiled.text, foot), data)
    else:
        before, behind = run((head, foot), data)
        body = text_from_html(html_body)
    return tidy(before + tidy(body) + behind) + "\n"


@contextmanager
def _reported(field: str) -> Iterator[None]:
    """Turn whatever goes wrong into a `RenderError` that quotes the template, never the data."""
    try:
        yield
    except RenderError:
        raise
    except LiquidError as error:
        raise RenderError(_explained(error), field=field) from None
    except Exception as error:  # noqa: BLE001 - filters raise what Python raises: one mail, one error
        raise RenderError(f"cannot be rendered ({type(error).__name__})", field=field) from None


def _explained(error: LiquidError) -> str:
    where = ""
    if (token := error.token) is not None and token.start_index >= 0:
        line = token.source.count("\n", 0, token.start_index) + 1
        where = f"line {line}: "
    # Only these quote nothing but the template; filters quote what they were given.
    if isinstance(error, _QUOTES_NO_DATA) and not isinstance(error, LiquidValueError):
        return f"{where}{error.message}"
    return f"{where}a filter or comparison cannot use its values"


# --- Compiling ----------------------------------------------------------------------------

_cache: dict[int, tuple[float, _Compiled]] = {}
_cache_lock = threading.Lock()


def _compiled(version: TemplateVersion) -> _Compiled:
    if version.pk is None or version.published_at is None:
        return _compile(version)
    entry = _cache.get(version.pk)
    if entry is not None and entry[0] > time.monotonic():
        return entry[1]
    compiled = _compile(version)
    with _cache_lock:
        _cache.pop(version.pk, None)
        while len(_cache) >= _CACHED_VERSIONS:
            del _cache[next(iter(_cache))]
        _cache[version.pk] = (time.monotonic() + settings.EMAILAUTO.templates.cache_ttl, compiled)
    return compiled


def _compile(version: TemplateVersion) -> _Compiled:
    return _Compiled(
        subject=compile_part("subject", version.subject),
        preheader=compile_part("preheader", version.preheader),
        html=compile_part("html", version.html),
        text=compile_part("text", version.text) if version.text.strip() else None,
        html_frame=_load_frame("layout.html"),
        text_frame=_load_frame("layout.txt"),
    )


def _load_frame(name: str) -> tuple[Part, Part]:
    path = next(filter(Path.is_file, _frame_paths(name)), None)
    if path is None:
        raise RenderError(f"email/{name} is missing in the templates directory", field="layout")
    parts = _BODY.split(path.read_text(encoding="utf-8"))
    if len(parts) != 2:
        raise RenderError(f"{name} must contain {{{{ body }}}} once", field="layout")
    with _reported("layout"):
        head, foot = map(sandbox.parse, parts)
        if not name.endswith(".html"):
            return part_of(head), part_of(foot)
        place(head.nodes, fragment=False)
        place(foot.nodes, fragment=False)
        return part_of(head, _FRAME_NAMES), part_of(foot)


def _frame_paths(name: str) -> Iterable[Path]:
    """The configured directory first, then the one that comes with the application."""
    configured = Path(settings.BASE_DIR) / settings.EMAILAUTO.templates.base_dir
    return (
        directory / "email" / name for directory in (configured, settings.BASE_DIR / "templates")
    )
