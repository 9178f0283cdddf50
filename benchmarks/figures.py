"""Figures: what was measured, the bound that it is held to, and the verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Sense = Literal["≤", "≥"]
Verdict = Literal["holds", "missed", "unclear", "reported"]


@dataclass(frozen=True)
class Bound:
    """What a figure must be: at most or at least `limit`, in its unit; `why` says where that was taken from."""

    sense: Sense
    limit: float
    why: str = ""

    def is_kept_by(self, value: float) -> bool:
        return value <= self.limit if self.sense == "≤" else value >= self.limit


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        bound: None for a figure that is only reported.
        noise: half the width of a 95 % interval around `value`; None where it was not estimated. A bound that lies
            within it gets no verdict.
        note: what else there is to know, in a few words.
    """

    name: str
    value: float
    unit: str
    bound: Bound | None = None
    noise: float | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.bound is None:
            return "reported"
        if self.noise is not None and abs(self.value - self.bound.limit) < self.noise:
            return "unclear"
        return "holds" if self.bound.is_kept_by(self.value) else "missed"


@dataclass(frozen=True)
class Measured:
    """What one benchmark gave: its figures, and everything beside them that helps to understand them."""

    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Options:
    """How to measure.

    Args:
        quick: fewer repetitions, to see that all works; no figure for quoting.
        peer_python: the interpreter that has the other trackers; None leaves them out.
    """

    quick: bool = False
    peer_python: str | None = None

    def pick(self, full: int, quick: int) -> int:
        """The number of repetitions for this kind of run."""
        return quick if self.quick else full


def at_most(limit: float, why: str = "") -> Bound:
    return Bound("≤", limit, why)


def at_least(limit: float, why: str = "") -> Bound:
    return Bound("≥", limit, why)
