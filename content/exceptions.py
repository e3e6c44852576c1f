"""What can be wrong with a template."""

from collections.abc import Sequence


class RenderError(Exception):
    """A template could not be turned into a mail.

    The message may be stored and shown: it names the part (`field`), the line and the reason, and
    it never contains the recipient's data.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class CannotPublish(Exception):
    """The version may not be published; `problems` is a list of (field, message)."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(": ".join(filter(None, problem)) for problem in self.problems))


class VersionIsFinal(Exception):
    """A published version is what people were sent; it is neither changed nor deleted."""
