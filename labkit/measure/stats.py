"""Medians and spreads: what is said about samples instead of an average.

Times have a floor (the work itself) and a long tail (the machine did something else). One late sample moves a mean anywhere
and a median hardly at all. The spread given beside it is the interquartile range: the width of the middle half. One run is an
anecdote, so the number of samples is always part of the summary.

Leaves out: confidence intervals, tests of significance; means.
See: Hyndman and Fan, "Sample quantiles in statistical packages" (1996), definition 7, which is also NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.errors import InvalidSpec
from labkit.measure.record import Result

__all__ = ["Summary", "mad", "median", "percentile", "summarise"]


@dataclass(frozen=True, slots=True)
class Summary(Result):
    """Samples in six numbers, in the samples' own unit."""

    n: int
    median: float
    lower_quartile: float
    upper_quartile: float
    minimum: float
    maximum: float

    @property
    def spread(self) -> float:
        """The interquartile range: how wide the middle half of the samples is."""
        return self.upper_quartile - self.lower_quartile


def percentile(samples: Iterable[float], percent: float) -> float:
    """Return the value below which ``percent`` of the samples lie, interpolated between neighbours.

    Raises: InvalidSpec without samples, for a sample that is no number, or a percentage outside 0 to 100.
    """
    ordered = sorted(samples)
    if not ordered or any(math.isnan(sample) for sample in ordered):
        raise InvalidSpec("There are no samples, or one is no number: a percentile needs at least one number.")
    if not 0 <= percent <= 100:
        raise InvalidSpec(f"{percent} is no percentage: it must be from 0 to 100.")
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    # Weighted, not `low + (high - low) * part`: the difference of two large numbers can overflow. Clamped, as two rounded
    # products can add up to a hair outside.
    part = position - below
    return low if low == high else min(max(low * (1 - part) + high * part, low), high)


def median(samples: Iterable[float]) -> float:
    """Return the middle sample, or halfway between the two in the middle."""
    return percentile(samples, 50)


def mad(samples: Iterable[float]) -> float:
    """Return the median absolute deviation: how far a typical sample is from the median."""
    kept = list(samples)
    middle = median(kept)
    return median(abs(sample - middle) for sample in kept)


def summarise(samples: Sequence[float]) -> Summary:
    """Return the summary of ``samples``. Raises: InvalidSpec without any."""
    cuts = [percentile(samples, percent) for percent in (50, 25, 75, 0, 100)]
    return Summary(len(samples), *cuts)
