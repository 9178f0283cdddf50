"""The statistics of the benchmarks."""

from __future__ import annotations

import math

import pytest
from benchmarks.samples import Spread, median_noise, percentile, slope, spread
from hypothesis import given
from hypothesis import strategies as st

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("fraction", "wanted"),
    [(0.0, 1.0), (0.25, 1.0), (0.26, 2.0), (0.5, 2.0), (0.99, 4.0), (1.0, 4.0)],
)
def test_percentile_is_the_nearest_rank(fraction: float, wanted: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], fraction) == wanted


@given(numbers, st.floats(0, 1))
def test_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], fraction: float) -> None:
    ordered = sorted(values)
    at = percentile(ordered, fraction)
    assert at in ordered
    assert sum(value <= at for value in ordered) >= fraction * len(ordered) - 1e-9


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_no_percentile_of_nothing_or_outside(values: list[float], fraction: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, fraction)


def test_spread_is_scaled() -> None:
    """Nanoseconds in, microseconds out."""
    assert spread([3000, 1000, 2000], 1e-3) == Spread(3, 2.0, 3.0, 3.0)


@given(st.floats(-100, 100), st.floats(-100, 100), st.integers(2, 30))
def test_slope_of_a_straight_line(start: float, rise: float, count: int) -> None:
    xs = [float(x) for x in range(count)]
    assert slope(xs, [start + rise * x for x in xs]) == pytest.approx(rise, abs=1e-6)


@pytest.mark.parametrize("xs", [[], [1.0], [2.0, 2.0]])
def test_slope_is_flat_where_there_is_no_line(xs: list[float]) -> None:
    assert slope(xs, [5.0] * len(xs)) == 0.0


def test_noise_of_equal_values_is_nothing() -> None:
    assert median_noise([0.4] * 20) == 0.0


def test_noise_of_too_few_values_is_without_bound() -> None:
    assert math.isinf(median_noise([0.1, 0.2]))


def test_noise_shrinks_with_more_values() -> None:
    few = [float(value % 10) for value in range(10)]
    assert median_noise(few * 40) < median_noise(few)
