"""Numbers to histograms, as protocol.md §5 has them: with numpy where it is loaded, without it else.

Every finite double has a place: no range is so wide that it overflows, none so narrow that it divides by zero.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

BINS = 64
MAX_BINS = 4096
# More elements than this are sampled at even distances; fewer where numpy is not there to count them.
MAX_ELEMENTS = 1_000_000
MAX_ELEMENTS_WITHOUT_NUMPY = 100_000


class Unstorable(Exception):
    """Why a value cannot be stored, for people."""


def at_most(numpy: object) -> int:
    """How many elements are counted on the host, with this module numpy, or None."""
    return MAX_ELEMENTS if numpy is not None else MAX_ELEMENTS_WITHOUT_NUMPY


def histogram(elements: Any, total: int, *, bins: int = BINS) -> dict[str, Any]:
    """The object of protocol.md §5, with `nonfinite` values left out, and `sample_of` where not all were seen."""
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= MAX_BINS:
        raise Unstorable(f"bins={bins!r:.80} is not a whole number from 1 to {MAX_BINS}")
    numpy = sys.modules.get("numpy")
    counted = _count_with_python(elements, bins) if numpy is None else _count_with_numpy(numpy, elements, bins)
    if len(elements) < total:
        counted["sample_of"] = total
    return counted


def _count_with_numpy(numpy: Any, elements: Any, bins: int) -> dict[str, Any]:
    every = numpy.asarray(elements, dtype=numpy.float64)
    values = every[numpy.isfinite(every)]
    if not values.size:
        raise Unstorable("it holds no finite number")
    with numpy.errstate(all="ignore"):
        low, high = float(values.min()), float(values.max())
        start, width, half = _range(low, high)
        places = ((values * half - start * half) / width * bins).astype(numpy.int64)
        counts = numpy.bincount(places.clip(0, bins - 1), minlength=bins)
        scale = max(abs(low), abs(high)) or 1.0
        mean, std = float((values / scale).mean()) * scale, float((values / scale).std()) * scale
    return _body(counts.tolist(), _edges(low, high, bins), (low, high, mean, std), len(every))


def _count_with_python(elements: Sequence[float], bins: int) -> dict[str, Any]:
    values = [value for value in elements if math.isfinite(value)]
    if not values:
        raise Unstorable("it holds no finite number")
    low, high = min(values), max(values)
    start, width, half = _range(low, high)
    counts = [0] * bins
    for value in values:
        place = int((value * half - start * half) / width * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    scale = max(abs(low), abs(high)) or 1.0
    mean = math.fsum(value / scale for value in values) / len(values)
    std = math.sqrt(math.fsum((value / scale - mean) ** 2 for value in values) / len(values))
    return _body(counts, _edges(low, high, bins), (low, high, mean * scale, std * scale), len(elements))


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Where the bins start, and how wide all are together, times the factor that keeps it below infinity."""
    start, end = _ends(low, high)
    half = 1.0 if math.isfinite(end - start) else 0.5
    return start, end * half - start * half, half


def _ends(low: float, high: float) -> tuple[float, float]:
    """Equal values get a bin of some width around them."""
    if low < high:
        return low, high
    margin, most = max(0.5, abs(low) * 1e-9), sys.float_info.max
    return max(low - margin, -most), min(high + margin, most)


def _edges(low: float, high: float, bins: int) -> list[float]:
    """One edge more than bins. Each step rounds the same way, so that they never descend."""
    start, end = _ends(low, high)
    _, width, half = _range(low, high)
    inner = ((start * half + width * (place / bins)) / half for place in range(1, bins))
    return [start, *(min(edge, end) for edge in inner), end]


def _body(
    counts: list[int], edges: list[float], figures: tuple[float, float, float, float], total: int
) -> dict[str, Any]:
    low, high, mean, std = figures
    count = sum(counts)
    body: dict[str, Any] = {"_type": "histogram", "bins": edges, "counts": counts, "min": low, "max": high}
    body |= {"mean": min(max(mean, low), high), "std": std, "count": count}
    return body | {"nonfinite": total - count} if total > count else body


def from_device(
    counts: list[int], figures: tuple[float, float, float, float], nonfinite: int, total: int
) -> dict[str, Any]:
    """The object for values that were counted elsewhere, into BINS bins of one width from the least to the greatest.

    Args:
        figures: min, max, mean and std of the finite ones.
        total: how many there were, of which those that were counted may be a sample.
    """
    seen = sum(counts) + nonfinite
    body = _body(counts, _edges(figures[0], figures[1], len(counts)), figures, seen)
    return body | {"sample_of": total} if seen < total else body


def from_counts(counts: list[float], edges: list[float]) -> dict[str, Any]:
    """The object for bins that somebody counted; mean and std are those of the bins' middles."""
    if not all(map(math.isfinite, (*counts, *edges))) or any(count < 0 for count in counts):
        raise Unstorable("counts and edges must be finite, and counts not negative")
    if any(after < before for before, after in itertools.pairwise(edges)):
        raise Unstorable("edges must ascend")
    if len(counts) > MAX_BINS:
        raise Unstorable(f"more than {MAX_BINS} bins")
    count = math.fsum(counts)
    if not count:
        raise Unstorable("all counts are 0")
    middles = [before * 0.5 + after * 0.5 for before, after in itertools.pairwise(edges)]
    mean = math.fsum(number / count * middle for number, middle in zip(counts, middles, strict=True))
    variance = math.fsum(
        number / count * (middle - mean) ** 2 for number, middle in zip(counts, middles, strict=True)
    )
    whole = [int(number) if number == int(number) else number for number in counts]
    figures = {"min": edges[0], "max": edges[-1], "mean": mean, "std": math.sqrt(variance)}
    return {"_type": "histogram", "bins": edges, "counts": whole, **figures, "count": sum(whole)}
