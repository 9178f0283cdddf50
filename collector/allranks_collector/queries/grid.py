"""The bucket grid: buckets `2^shift` wide that begin at multiples of their width.

As a run grows, buckets that are full never change, and when the shift has to grow, two old buckets become one new: a
live chart does not flicker. Pure; positions are steps, or nanoseconds.
"""

from __future__ import annotations

# Positions are signed 64-bit integers. Wider buckets than this are never needed but for spans on both sides of 0.
MAX_SHIFT = 62


def bucket_count(low: int, high: int, shift: int) -> int:
    """How many buckets of this shift the positions from `low` to `high`, both included, touch."""
    return (high >> shift) - (low >> shift) + 1


def fitting_shift(low: int, high: int, buckets: int) -> int:
    """The smallest shift at which `low` to `high` touch at most `buckets` (≥ 1) buckets."""
    for shift in range(MAX_SHIFT):
        if bucket_count(low, high, shift) <= buckets:
            return shift
    return MAX_SHIFT


def is_wasteful(used: int, shift: int, buckets: int) -> bool:
    """Whether the next finer grid would fit too, or this one does not: the span was guessed wrongly."""
    return used > buckets or (shift > 0 and used * 2 <= buckets)
