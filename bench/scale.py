"""How large a run is."""

from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """The part of the full size, and how often everything is repeated. Only at full size does a
    figure mean anything; a small run shows that the benchmark works."""

    part: float = 1.0
    rounds: int = ROUNDS
    stored: float = 1.0
    """The part of what is there before anything is measured, where that is what it is about."""

    def of(self, full: int) -> int:
        """That part of a number, at least 1."""
        return max(1, round(full * self.part))

    def of_stored(self, full: int) -> int:
        """The part of a number of rows that are there before."""
        return max(1, round(full * self.stored))


IN_ALL = {
    "intake-single": Scale(0.5, 3),
    "intake-bulk": Scale(0.5, 3),
    "growth": Scale(1 / 6, 3),
    "latency": Scale(0.2, 3),
    "matching": Scale(1.0, 2),
    "receipts": Scale(0.2, 2),
    "render": Scale(1.0, 5),
    "memory": Scale(0.3, 2),
    "pipeline": Scale(1.0, 3),
    "smtp-delay": Scale(0.5, 3),
    "http-single": Scale(1.0, 2),
    "http-batch": Scale(1.0, 3),
    "calls-saved": Scale(1.0, 1),
    "promise": Scale(0.3, 1),
}
"""What each gets when all of them run: that has to end within a quarter of an hour on two cores."""
