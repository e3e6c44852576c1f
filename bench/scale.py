"""How large a run is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The part of the full size, and how often everything is repeated. Only at full size does a
    figure mean anything; a small run shows that the benchmark works."""

    part: float = 1.0
    rounds: int = 5

    def of(self, full: int) -> int:
        """That part of a number, at least 1."""
        return max(1, round(full * self.part))
