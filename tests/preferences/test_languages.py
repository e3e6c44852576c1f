"""Which language the pages speak, and that they can say everything in it."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from babel.messages import mofile, pofile
from django.conf import settings

from delivery.links import PREFERENCES, UNSUBSCRIBE
from delivery.models import Message
from preferences.languages import page_language
from preferences.pages import readable_on
from preferences.proof import wording_version
from tests.factories import MessageFactory, TopicFactory
from tests.preferences.pages import get

TRANSLATED = [code for code in settings.PAGE_LANGUAGES if code != "en"]
_SIMPLE = re.compile(r'{% translate "([^"]+)" %}')
_BLOCK = re.compile(r"{% blocktranslate[^%]*%}(.*?){% (?:endblocktranslate|plural) %}", re.DOTALL)
_VARIABLE = re.compile(r"{{ (\w+) }}")


def catalogue(language: str) -> Path:
    return settings.BASE_DIR / "locale" / language / "LC_MESSAGES" / "django.po"


def words_of_the_pages() -> set[str]:
    words: set[str] = set()
    for path in (settings.BASE_DIR / "templates" / "preferences").rglob("*.html"):
        source = path.read_text()
        words |= set(_SIMPLE.findall(source))
        words |= {_VARIABLE.sub(r"%(\1)s", text) for text in _BLOCK.findall(source)}
    source = (settings.BASE_DIR / "preferences" / "words.py").read_text()
    return words | set(re.findall(r'\b(?:_|gettext)\("([^"]+)"\)', source))


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_word_of_the_pages_is_translated(language: str) -> None:
    with catalogue(language).open("rb") as file:
        entries = {m.id if isinstance(m.id, str) else m.id[0]: m for m in pofile.read_po(file)}
    words = words_of_the_pages()
    assert len(words) > 60
    assert words - entries.keys() == set()
    assert entries.keys() - words - {""} == set()
    for word in words:
        translated = entries[word].string
        for text in [translated] if isinstance(translated, str) else translated:
            assert text
            assert set(re.findall(r"%\(\w+\)s", text)) == set(re.findall(r"%\(\w+\)s", word))


def pairs(catalogue: Any) -> dict[Any, Any]:
    return {str([*m.id]): [*m.string] for m in catalogue if m.id}


@pytest.mark.parametrize("language", TRANSLATED)
def test_compiled_catalogue_is_that_of_its_source(language: str) -> None:
    with catalogue(language).open("rb") as file:
        source = pairs(pofile.read_po(file))
    with catalogue(language).with_suffix(".mo").open("rb") as file:
        compiled = pairs(mofile.read_mo(file))
    assert compiled == source


@pytest.mark.parametrize(
    ("locale", "accepted", "expected"),
    [
        ("", "", "en"),
        ("de", "fr", "de"),
        ("de_AT", "", "de"),
        ("DE-ch", "", "de"),
        ("tlh", "fr-CA, de;q=0.5", "fr"),
        ("", "ja, es;q=0.8, de;q=0.9", "de"),
        ("", "*", "en"),
        ("", "de;q=nonsense,,;;", "en"),
        ("x" * 500, "y" * 5000, "en"),
        ("../../etc", "", "en"),
    ],
)
def test_language_is_the_persons_else_the_browsers(
    locale: str, accepted: str, expected: str
) -> None:
    assert page_language(locale, accepted) == expected


@pytest.fixture
def message(db: None) -> Message:
    return MessageFactory(stream="marketing", topic=TopicFactory(), state="sent")


@pytest.mark.parametrize("language", settings.PAGE_LANGUAGES)
@pytest.mark.parametrize("purpose", [UNSUBSCRIBE, PREFERENCES])
def test_page_says_which_language_it_is_in(message: Message, purpose: str, language: str) -> None:
    response = get(message, purpose, headers={"accept-language": language})
    assert response["Content-Language"] == language
    assert f'<html lang="{language}" dir="ltr">' in response.content.decode()


def test_wording_version_depends_on_page_and_language() -> None:
    versions = {wording_version(p, x) for p in ("unsubscribe", "preferences") for x in ("en", "de")}
    assert len(versions) == 4


def test_text_on_every_accent_can_be_read() -> None:
    def contrast(one: str, other: str) -> float:
        a, b = sorted((luminance(one), luminance(other)))
        return (b + 0.05) / (a + 0.05)

    for red in range(0, 256, 17):
        for green in range(0, 256, 17):
            for blue in range(0, 256, 17):
                colour = f"#{red:02x}{green:02x}{blue:02x}"
                assert contrast(colour, readable_on(colour)) >= 4.5


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.django_db
def test_theme_of_the_configuration_is_on_the_page(message: Message, settings: Any) -> None:
    pages = msgspec.structs.replace(
        settings.EMAILAUTO.pages,
        accent="#ffcc00",
        logo_url="https://cdn.example.com/logo.svg",
        privacy_url="https://shop.example.com/privacy",
    )
    settings.EMAILAUTO = msgspec.structs.replace(settings.EMAILAUTO, pages=pages)
    response = get(message, UNSUBSCRIBE)
    html = response.content.decode()
    assert "--act: #ffcc00; --act-ink: #000000" in html
    assert 'src="https://cdn.example.com/logo.svg" alt="Shop"' in html
    assert 'href="https://shop.example.com/privacy"' in html
    assert "img-src https://cdn.example.com;" in response["Content-Security-Policy"]


def test_french_marks_do_not_stand_alone_at_the_end_of_a_line() -> None:
    with catalogue("fr").open("rb") as file:
        entries = [m.string for m in pofile.read_po(file) if m.id]
    texts = [t for s in entries for t in ([s] if isinstance(s, str) else s)]
    assert [t for t in texts if re.search(r"« | [»:;?!]", t)] == []
