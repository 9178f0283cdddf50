"""The statistics that the benchmarks use. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """How many values there were, and how they lie."""

    count: int
    median: float
    p99: float
    max: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest of the ascending values that at least `fraction` of them do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or `fraction` is not from 0 to 1.
    """
    if not ordered or not 0 <= fraction <= 1:
        raise ValueError(f"no percentile {fraction} of {len(ordered)} values")
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def spread(values: Sequence[float], scale: float = 1.0) -> Spread:
    """The spread of values, each times `scale`."""
    ordered = sorted(values)
    middle, high, top = (percentile(ordered, fraction) * scale for fraction in (0.5, 0.99, 1.0))
    return Spread(len(ordered), middle, high, top)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of the straight line that fits best; 0 where there are fewer than two different x."""
    if len(xs) < 2:
        return 0.0
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    below = sum((x - middle_x) ** 2 for x in xs)
    if below == 0:
        return 0.0
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / below


def median_noise(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> float:
    """Half the width of the bootstrap's 95 % interval for the median; infinite for fewer than three values."""
    if len(values) < 3:
        return math.inf
    draw = random.Random(seed)
    medians = sorted(median(draw.choices(values, k=len(values))) for _ in range(resamples))
    return (percentile(medians, 0.975) - percentile(medians, 0.025)) / 2
