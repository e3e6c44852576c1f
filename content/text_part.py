"""The plain-text alternative of a mail, made from its HTML."""

import re
from typing import Any

from inscriptis import get_text
from inscriptis.css_profiles import STRICT_CSS_PROFILE
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_document_state import HtmlDocumentState
from inscriptis.model.tag import CustomHtmlTagHandlerMapping

_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def text_from_html(html: str) -> str:
    """The text of an HTML fragment; a link reads `label <https://…>`."""
    return tidy(get_text(html, _CONFIG))


def tidy(text: str) -> str:
    """Without white space at line ends and around the text, at most one blank line in a row."""
    text = text.replace("\r\n", "\n").replace("\u00a0", " ")
    # Most text is tidy, and to look for pieces of it is much cheaper than a pattern.
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text = _TRAILING.sub("", text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n")


def _link_starts(state: HtmlDocumentState, attributes: dict[str, Any]) -> None:
    state.link_target = attributes.get("href", "")


def _link_ends(state: HtmlDocumentState) -> None:
    if state.link_target.startswith(("http://", "https://", "mailto:", "tel:")):
        state.tags[-1].write(f" <{state.link_target.removeprefix('mailto:')}>")
    state.link_target = ""


_CONFIG = ParserConfig(
    css=STRICT_CSS_PROFILE,
    custom_html_tag_handler_mapping=CustomHtmlTagHandlerMapping(
        start_tag_mapping={"a": _link_starts}, end_tag_mapping={"a": _link_ends}
    ),
)
