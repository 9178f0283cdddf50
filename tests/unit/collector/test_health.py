"""The health of ranks: the table row by row, and that nobody is blamed without a reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.health import TRANSITIONS, Patience, Sign, State, Ward, run_state, sign_of_close

_SHORT = {
    "-": None,
    "run": State.RUNNING,
    "stall": State.STALLED,
    "unre": State.UNREACHABLE,
    "dead": State.DEAD,
    "fail": State.FAILED,
    "fin": State.FINISHED,
}
_SIGNS = (
    *(Sign.BEAT, Sign.STEP, Sign.QUIET, Sign.SILENT),
    *(Sign.GONE, Sign.GONE_BADLY, Sign.CLOSED, Sign.CLOSED_BADLY),
)
# From each state (row), what each sign (column, as in _SIGNS) makes of it.
_TABLE = {
    State.RUNNING: "     -    -   stall unre dead dead fin  fail",
    State.STALLED: "     -    run -     unre dead dead fin  fail",
    State.UNREACHABLE: " run  -   -     -    dead dead fin  fail",
    State.DEAD: "        run  -   -     -    -    -    fin  fail",
    State.FINISHED: "    -    -   -     -    -    fail -    -",
    State.FAILED: "      -    -   -     -    -    -    -    -",
}
_CASES = [
    (state, sign, _SHORT[word])
    for state, row in _TABLE.items()
    for sign, word in zip(_SIGNS, row.split(), strict=True)
]


@pytest.mark.parametrize(("state", "sign", "after"), _CASES)
def test_each_sign_makes_of_each_state_what_the_table_says(state: State, sign: Sign, after: State | None) -> None:
    ward = Ward(Patience())
    ward.admit(1, state, 0.0, 0)
    changes = list(ward.see(1, sign, {"reason": "r"}))
    assert [(change.writer, change.state, change.sign) for change in changes] == ([(1, after, sign)] if after else [])
    assert ward.state(1) == (after or state)


def test_the_table_has_a_row_for_each_state_that_a_writer_can_be_in() -> None:
    assert set(TRANSITIONS) == set(_TABLE) == set(State) - {State.EXPECTED}
    assert set(_SIGNS) == set(Sign)


def _ward(state: State = State.RUNNING, patience: Patience | None = None) -> Ward:
    ward = Ward(patience or Patience())
    ward.admit(1, state, 0.0, 0)
    return ward


def _states(changes: object) -> list[State]:
    return [change.state for change in changes]  # type: ignore[attr-defined]  # an iterator of Change


def test_a_writer_without_a_beat_for_too_long_is_unreachable_and_comes_back_with_a_beat() -> None:
    ward = _ward()
    assert _states(ward.look(5.0)) == []
    (change,) = ward.look(5.1)
    assert (change.state, change.detail) == (State.UNREACHABLE, {"reason": "no sign of life for 5 s"})
    assert _states(ward.look(6.0)) == []
    assert _states(ward.hear(1, None, 7.0, 70)) == [State.RUNNING]
    assert ward.heard_ns(1) == 70


def test_a_step_that_does_not_move_stalls_and_moves_on() -> None:
    ward = _ward()
    for second in range(6):
        assert _states(ward.hear(1, 10 * second, float(second), 0)) == []
    for second in range(6, 16):
        assert _states(ward.hear(1, 50, float(second), 0)) == []
        assert _states(ward.look(float(second))) == []
    ward_hears = ward.hear(1, 50, 16.0, 0)
    assert _states(ward_hears) == []
    (change,) = ward.look(16.0)
    assert (change.state, change.detail) == (State.STALLED, {"reason": "no step after 50 for 11 s"})
    assert _states(ward.hear(1, 50, 17.0, 0)) == []
    assert _states(ward.hear(1, 51, 18.0, 0)) == [State.RUNNING]


def test_a_stalled_writer_is_not_running_because_a_new_collector_sees_its_step() -> None:
    ward = _ward(State.STALLED)
    assert _states(ward.hear(1, 50, 1.0, 0)) == []
    assert _states(ward.hear(1, 51, 2.0, 0)) == [State.RUNNING]


def test_steps_that_are_stored_count_as_progress_and_not_as_a_sign_of_life() -> None:
    ward = _ward(State.STALLED)
    assert _states(ward.hear(1, 50, 1.0, 0)) == []
    assert _states(ward.progress(1, 40, 2.0)) == []  # what had waited, while the newest is known from the beat
    assert _states(ward.progress(1, 51, 3.0)) == [State.RUNNING]
    assert _states(ward.look(6.5)) == [State.UNREACHABLE]
    assert _states(ward.progress(1, 52, 7.0)) == []


def test_nobody_is_judged_before_it_has_shown_a_pace() -> None:
    ward = _ward()
    for second in range(1, 1000):
        assert _states(ward.hear(1, 0, float(second), 0)) == []
        assert _states(ward.look(float(second))) == []


def test_a_collector_that_was_away_excuses_everybody() -> None:
    ward = _ward()
    for second in range(6):
        list(ward.hear(1, second, float(second), 0))
    ward.excuse(100.0)
    assert _states(ward.look(105.0)) == []
    assert _states(ward.look(111.0)) == [State.UNREACHABLE]


@pytest.mark.parametrize(
    "signs", [(Sign.GONE_BADLY, Sign.CLOSED), (Sign.CLOSED, Sign.GONE_BADLY)], ids=["death first", "CLOSE first"]
)
def test_a_bad_end_is_a_failure_whether_the_close_comes_before_or_after_it(signs: tuple[Sign, Sign]) -> None:
    ward = _ward()
    details: dict[Sign, dict[str, int | None]] = {Sign.GONE_BADLY: {"exit_code": 3}, Sign.CLOSED: {"exit_code": None}}
    changes = [change for sign in signs for change in ward.see(1, sign, details[sign])]
    assert changes[-1].state == ward.state(1) == State.FAILED
    assert changes[-1].detail["exit_code"] == 3


@pytest.mark.parametrize(
    "signs", [(Sign.GONE_BADLY, Sign.CLOSED), (Sign.CLOSED, Sign.GONE_BADLY)], ids=["death first", "CLOSE first"]
)
def test_who_said_that_it_ended_well_has_however_its_process_ends(signs: tuple[Sign, Sign]) -> None:
    ward = _ward()
    details: dict[Sign, dict[str, Any]] = {Sign.GONE_BADLY: {"signal": "SIGTERM"}, Sign.CLOSED: {"exit_code": 0}}
    changes = [change for sign in signs for change in ward.see(1, sign, details[sign])]
    assert changes[-1].state == ward.state(1) == State.FINISHED


def test_who_is_discharged_changes_no_more() -> None:
    ward = _ward()
    ward.discharge(1)
    assert (len(ward), 1 in ward, ward.state(1), ward.heard_ns(1)) == (0, False, None, None)
    assert _states(ward.see(1, Sign.GONE, {})) == []
    assert _states(ward.hear(1, 1, 1.0, 1)) == []


def test_who_is_admitted_twice_stays_as_it_is() -> None:
    ward = _ward(State.UNREACHABLE)
    ward.admit(1, State.RUNNING, 9.0, 9)
    assert ward.state(1) == State.UNREACHABLE


@given(
    step_s=st.floats(0.001, 300.0),
    jitter=st.lists(st.floats(0.5, 1.5), min_size=20, max_size=60),
)
def test_who_is_slow_but_steady_is_never_called_stalled(step_s: float, jitter: list[float]) -> None:
    ward = _ward()
    at = 0.0
    for step, factor in enumerate(jitter):
        moves_at = at + step_s * factor
        while at < moves_at:
            assert _states(ward.hear(1, step, at, 0)) == []
            assert _states(ward.look(at)) == []
            at = at + 1.0 if moves_at - at > 1.0 else moves_at


@given(evaluation_s=st.floats(0.1, 600.0), every=st.integers(5, 50), later=st.lists(st.floats(0.1, 2.5), max_size=4))
def test_what_happened_once_may_happen_again_and_take_longer(
    evaluation_s: float, every: int, later: list[float]
) -> None:
    ward = _ward()
    at, step = 0.0, 0

    def train() -> None:
        nonlocal at, step
        for _ in range(every):
            at, step = at + 1.0, step + 7
            list(ward.hear(1, step, at, 0))

    def evaluate(seconds: float) -> list[State]:
        nonlocal at
        found: list[State] = []
        end = at + seconds
        while at < end:
            at = min(at + 1.0, end)
            found += _states(ward.hear(1, step, at, 0)) + _states(ward.look(at))
        return found

    train()
    evaluate(evaluation_s)
    train()
    for factor in later:
        assert evaluate(evaluation_s * factor) == []
        train()


@given(step_s=st.floats(0.01, 60.0))
def test_who_hangs_is_called_stalled_after_its_patience(step_s: float) -> None:
    patience = Patience()
    ward = _ward(patience=patience)
    at = 0.0
    for step in range(10):
        at = step * step_s
        list(ward.hear(1, step, at, 0))
    allowed = max(patience.stall_min_s, patience.stall_factor * step_s)
    list(ward.hear(1, 9, at + allowed * 1.01, 0))
    assert _states(ward.look(at + allowed * 1.01)) == [State.STALLED]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "expected"),
        (["expected", "expected"], "expected"),
        (["running", "dead", "finished"], "running"),
        (["running", "stalled"], "running"),
        (["stalled", "stalled", "dead"], "stalled"),
        (["finished", "finished"], "finished"),
        (["finished", "failed", "dead"], "failed"),
        (["finished", "dead"], "dead"),
        (["finished", "unreachable", "failed"], "unreachable"),
    ],
)
def test_a_run_is_what_its_ranks_make_it(states: list[str], expected: str) -> None:
    assert run_state(states) == expected


@pytest.mark.parametrize(
    ("end", "sign", "detail"),
    [
        ({}, Sign.CLOSED, {"exit_code": None}),
        ({"exit_code": 0}, Sign.CLOSED, {"exit_code": 0}),
        ({"exit_code": 3}, Sign.CLOSED_BADLY, {"exit_code": 3, "reason": "exited with code 3"}),
        (
            {"exit_code": -9},
            Sign.CLOSED_BADLY,
            {"exit_code": None, "signal": "SIGKILL", "reason": "killed by SIGKILL"},
        ),
        (
            {"exit_code": -999},
            Sign.CLOSED_BADLY,
            {"exit_code": None, "signal": "signal 999", "reason": "killed by signal 999"},
        ),
    ],
)
def test_a_close_tells_how_it_ended(end: dict[str, Any], sign: Sign, detail: dict[str, Any]) -> None:
    assert sign_of_close(end) == (sign, detail)
