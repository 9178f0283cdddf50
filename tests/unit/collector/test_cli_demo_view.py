"""What the demo shows of its run."""

from __future__ import annotations

from typing import Any

from allranks_collector.cli.demo_view import View, progress_line, settled


def rank(number: int, state: str, **more: Any) -> dict[str, Any]:
    return {"rank": number, "state": state, "host": "h", "pid": 100 + number, "last_step": 7, **more}


def test_settled_when_all_expected_ranks_have_ended() -> None:
    view = View("n", expected=2)
    seen: list[bool] = []
    for states in (["finished"], ["finished", "running"], ["finished", "dead"]):
        view.see([rank(number, state) for number, state in enumerate(states)])
        seen.append(settled(view))
    assert seen == [False, False, True]


def test_trouble_is_remembered_when_it_has_passed() -> None:
    view = View("n", expected=1)
    view.see([rank(0, "stalled")])
    view.see([rank(0, "dead")])
    assert view.troubled == {0: "stalled"}


def test_points_a_second_need_two_looks() -> None:
    view = View("n", expected=1)
    rates: list[float | None] = []
    for points, now_s in ((1000, 10.0), (3000, 11.0), (3000, 12.0), (None, 13.0)):
        view.count(points, now_s)
        rates.append(view.points_per_s)
    assert rates == [None, 2000.0, 1000.0, 1000.0]


def test_the_line_before_and_while_the_run_goes() -> None:
    view = View("n", expected=2)
    assert progress_line(view) == "waiting for the first rank"
    view.run = {"last_step": 41, "summary": {"train/loss": 0.123456, "test/accuracy": None}}
    view.points_per_s = 12345.6
    view.see([rank(0, "running"), rank(1, "running")])
    assert progress_line(view) == ("step 41   loss 0.1235   test accuracy –   12,346 points/s   ranks: 2 running")
