"""What is written into the ledger about a choice: where it was made, and on which words."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.template.loader import get_template

PAGES = ("unsubscribe", "preferences", "confirm")


@dataclass(frozen=True, slots=True)
class Proof:
    """The mail whose link was used, the page, its language, and the IP address where that is
    recorded."""

    message_id: UUID
    page: str
    language: str
    ip: str = ""
    note: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in a word."""
        return f"{self.page} page"

    @property
    def evidence(self) -> str:
        """Everything, for the ledger. No address."""
        words = (
            f"message {self.message_id}; page {self.page} in {self.language}, "
            f"wording {wording_version(self.page, self.language)}"
        )
        more = [f"IP {self.ip}"] if self.ip else []
        return "; ".join([words, *more, *filter(None, [self.note])])


@lru_cache(maxsize=64)
def wording_version(page: str, language: str) -> str:
    """12 hex digits that change with any word of the page: of its template and of the catalogue
    of its language."""
    digest = hashlib.sha256()
    if page in PAGES:
        origin = get_template(f"preferences/{page}.html").origin  # type: ignore[attr-defined]
        digest.update(Path(origin.name).read_bytes())
    for directory in settings.LOCALE_PATHS:
        catalogue = Path(directory) / language / "LC_MESSAGES" / "django.po"
        digest.update(catalogue.read_bytes() if catalogue.is_file() else b"")
    return digest.hexdigest()[:12]
