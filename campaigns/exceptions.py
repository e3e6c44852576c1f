"""What can go wrong with a campaign, in words its author understands."""


class CannotPublish(Exception):
    """The draft is not complete; `problems` are (where, what) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in problems))
        self.problems = problems
