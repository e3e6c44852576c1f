"""What the pages list is what there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from django.test import Client

from common.api import ApiError
from emailauto.config import Config
from events.native import answer_one
from events.states import RefusalCode
from events.wire import Problem, Refusal
from monitoring import metrics
from webhooks.providers import ADAPTERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
INTAKE = [
    *sorted((ROOT / "events").rglob("*.py")),
    ROOT / "common/api.py",
    ROOT / "emailauto/asgi.py",
]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def raised() -> Iterator[tuple[int, str]]:
    """Status and code of every `ApiError` that the sources of the intake spell out."""
    for file in INTAKE:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError":
                status = next((k.value for k in node.keywords if k.arg == "status_code"), None)
                if isinstance(node.args[0], ast.Constant):
                    yield (status.value if status else 400, node.args[0].value)


def refused() -> Iterator[tuple[int, str]]:
    """Status and code of an event that is not let in."""
    for code in set(RefusalCode) - {RefusalCode.CONFLICT}:  # whose answer is spelled out
        refusal = Refusal(code, (Problem("", ""),), "")
        with pytest.raises(ApiError) as error:
            answer_one([refusal], [refusal])
        yield error.value.status_code, error.value.code


def test_every_code_of_the_intake_is_in_the_table_with_its_status() -> None:
    other = Client().get("/api/v1/events")
    there_are = {*raised(), *refused(), (other.status_code, other.json()["code"])}
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page("events.md"), re.MULTILINE)
    assert {(int(status), code) for status, code in rows} == there_are


def test_every_provider_of_webhooks_is_on_its_page_with_its_variables() -> None:
    rows = dict(
        re.findall(r"^\| [\w ]+ \(`(\w+)`\) \|.*\|(.*)\|$", page("webhooks.md"), re.MULTILINE)
    )
    assert set(rows) == set(ADAPTERS)
    for provider, adapter in ADAPTERS.items():
        assert set(re.findall(r"`([A-Z_]{6,})`", rows[provider])) == set(adapter.settings)
    everything = page("configuration.md"), (ROOT / ".env.example").read_text(encoding="utf-8")
    for name in {name for adapter in ADAPTERS.values() for name in adapter.settings}:
        assert all(name in text for text in everything)


def keys(section: type[msgspec.Struct], above: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(section).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from keys(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_every_key_of_the_configuration_is_explained() -> None:
    said: set[str] = set()
    for first in re.findall(r"^\| (.+?) \| ", page("configuration.md"), re.MULTILINE):
        section = ""
        for name in re.findall(r"`([\w.]+)`", first):
            said.add(section + name if name.startswith(".") else name)
            section = name.rpartition(".")[0] if not name.startswith(".") else section
    assert set(keys(Config)) - said == {"version"}


def test_every_variable_of_the_environment_is_explained() -> None:
    source = (ROOT / "emailauto" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'\b(?:env(?:\.\w+)?|_secret)\("([A-Z_]+)"', source))
    assert len(read) > 20
    assert read - set(re.findall(r"`([A-Z_]+)`", page("configuration.md"))) == set()


def test_every_metric_is_explained() -> None:
    names = set(re.findall(r'"(emailauto_\w+)"', Path(metrics.__file__).read_text("utf-8")))
    assert names
    assert {name for name in names if name not in page("operations.md")} == set()


def test_tests_that_the_pages_name_exist() -> None:
    for held in re.findall(r"\| ([^|]+) \|$", page("guarantees.md"), re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([\w/]+(?:\.py)?)`", held):
            path = Path(name) if "/" in name else Path(folder, name)
            folder = str(path.parent)
            assert (ROOT / path).exists(), name


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        found = (file.parent / path) if path else file
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found.read_text(encoding="utf-8")), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
