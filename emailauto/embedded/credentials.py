"""The secrets of the embedded default: made once, so that nobody has to invent one to try it."""

import json
import secrets
import string
from collections.abc import Callable, Mapping
from pathlib import Path

from emailauto.files import write_private

_ALPHANUMERIC = string.ascii_lowercase + string.digits


def _text(length: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))


# None of these values holds a character that a URL, a shell or an env file would take for syntax.
_MAKERS: Mapping[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "ADDRESS_HASH_KEY": lambda: secrets.token_urlsafe(32),
    "WEBHOOK_SECRET": lambda: f"emailauto:{secrets.token_urlsafe(24)}",
    "EMAILAUTO_DEMO_API_KEY": lambda: f"emauto_live_{_text(8)}_{_text(40)}",
    "EMAILAUTO_DEMO_PASSWORD": lambda: secrets.token_urlsafe(12),
}


def new_credentials() -> dict[str, str]:
    """Return a fresh value for every secret."""
    return {name: make() for name, make in _MAKERS.items()}


def kept_credentials(path: Path) -> dict[str, str]:
    """Return the secrets in `path`, after adding those it lacks.

    Raise `ValueError` when it is not a JSON object: new secrets in its place would make every
    suppressed address unrecognisable.
    """
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not isinstance(kept, dict):
        raise ValueError(f"{path} does not hold a JSON object.")
    complete = {**new_credentials(), **kept}
    if complete != kept:
        write_private(path, json.dumps(complete, indent=1) + "\n")
    return complete
