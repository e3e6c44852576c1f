"""What the rounds of a benchmark say. Pure arithmetic.

Absolute figures of a shared machine swing from minute to minute; what two sides do within one
round swings together. So the ratio is taken per round, and the median of those is the result.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

P50 = "p50 ms"
P99 = "p99 ms"
GOAL = "goal"
"""The name of a baseline that nobody ran."""

Sample = Mapping[str, float]
"""What one side did in one round: figures by their unit."""


@dataclass(frozen=True, slots=True)
class Series:
    """One side over all rounds; its samples have the same units."""

    name: str
    samples: Sequence[Sample]

    def figures(self, unit: str) -> list[float]:
        """One figure per round."""
        return [sample[unit] for sample in self.samples]

    @property
    def units(self) -> list[str]:
        return list(self.samples[0])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours and what it is compared with: the baseline, and perhaps others for information.

    `unit` is the figure that is compared, and `n` what each side handled per round. A ratio above
    1 is in our favour.
    """

    title: str
    unit: str
    n: int
    ours: Series
    baseline: Series
    others: Sequence[Series] = ()
    is_less_better: bool = False

    def ratios(self, other: Series) -> list[float]:
        """Us against the other side, per round."""
        pairs = zip(self.ours.figures(self.unit), other.figures(self.unit), strict=True)
        if self.is_less_better:
            return [theirs / ours for ours, theirs in pairs]
        return [ours / theirs for ours, theirs in pairs]

    @property
    def ratio(self) -> float:
        """The median against the baseline."""
        return statistics.median(self.ratios(self.baseline))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
