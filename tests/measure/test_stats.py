from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.measure.stats import mad, median, percentile, summarise

numbers = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)
lists = st.lists(numbers, min_size=1, max_size=60)
times = st.lists(st.floats(min_value=0, max_value=1e6), min_size=2, max_size=60)


def near(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)


@given(times)
def test_the_median_is_that_of_the_standard_library(samples: list[float]) -> None:
    assert near(median(samples), statistics.median(samples))


@given(times)
def test_quartiles_are_those_of_the_standard_library(samples: list[float]) -> None:
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    assert near(percentile(samples, 25), lower)
    assert near(percentile(samples, 75), upper)


@given(lists, st.floats(min_value=0, max_value=100))
def test_a_percentile_lies_within_the_samples(samples: list[float], percent: float) -> None:
    assert min(samples) <= percentile(samples, percent) <= max(samples)


@given(lists)
def test_percentiles_do_not_decrease_and_end_at_the_extremes(samples: list[float]) -> None:
    found = [percentile(samples, percent) for percent in range(0, 101, 5)]
    assert all(low <= high or near(low, high) for low, high in itertools.pairwise(found))
    assert (found[0], found[-1]) == (min(samples), max(samples))


@given(lists, st.randoms())
def test_the_order_of_the_samples_does_not_matter(samples: list[float], random: object) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarise(shuffled) == summarise(samples)


@given(lists)
def test_a_summary_is_in_order(samples: list[float]) -> None:
    summary = summarise(samples)
    assert summary.minimum <= summary.lower_quartile <= summary.median <= summary.upper_quartile <= summary.maximum
    assert (summary.n, summary.spread >= 0) == (len(samples), True)


@given(times, st.floats(min_value=0, max_value=1e6))
def test_the_median_absolute_deviation_does_not_move_with_the_samples(samples: list[float], shift: float) -> None:
    assert math.isclose(mad(sample + shift for sample in samples), mad(samples), rel_tol=1e-6, abs_tol=1e-6)


def test_one_late_sample_moves_the_median_hardly() -> None:
    assert median([1.0, 1.1, 1.2, 1.3, 900.0]) == 1.2
    assert mad([1.0, 1.1, 1.2, 1.3, 900.0]) == pytest.approx(0.1)


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0, math.nan], 50), ([1.0], -1), ([1.0], 101)])
def test_what_has_no_percentile_is_refused(samples: list[float], percent: float) -> None:
    with pytest.raises(InvalidSpec):
        percentile(samples, percent)
