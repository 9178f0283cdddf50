"""Figures and their verdicts."""

from __future__ import annotations

import pytest
from benchmarks.figures import Figure, Options, at_least, at_most


@pytest.mark.parametrize(("value", "verdict"), [(1.6, "holds"), (1.7, "holds"), (1.71, "missed")])
def test_an_upper_bound_is_held_up_to_its_limit(value: float, verdict: str) -> None:
    assert Figure("f", value, "×", at_most(1.7)).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(0.79, "missed"), (0.8, "holds"), (2.0, "holds")])
def test_a_lower_bound_is_held_from_its_limit_on(value: float, verdict: str) -> None:
    assert Figure("f", value, "×", at_least(0.8)).verdict == verdict


def test_what_has_no_bound_is_reported() -> None:
    assert Figure("f", 5.0, "µs", noise=100.0).verdict == "reported"


@pytest.mark.parametrize(
    ("value", "noise", "verdict"),
    [(0.3, 0.1, "holds"), (0.3, 0.3, "unclear"), (0.6, 0.3, "unclear"), (0.9, 0.3, "missed")],
)
def test_a_bound_within_the_noise_gets_no_verdict(value: float, noise: float, verdict: str) -> None:
    assert Figure("f", value, "%", at_most(0.5), noise=noise).verdict == verdict


@pytest.mark.parametrize(("quick", "wanted"), [(False, 40), (True, 4)])
def test_quick_runs_repeat_less(quick: bool, wanted: int) -> None:
    assert Options(quick=quick).pick(40, 4) == wanted
