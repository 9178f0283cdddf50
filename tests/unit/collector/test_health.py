"""The health of ranks: the table row by row, and that nobody is blamed without a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.health import (
    TRANSITIONS,
    Change,
    Condition,
    Sign,
    State,
    Ward,
    run_state,
    sign_of_close,
)
from allranks_collector.pace import Patience, Said, said_in

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
    *(Sign.BEAT, Sign.STEP, Sign.QUIET, Sign.HELD, Sign.FREED, Sign.SILENT, Sign.LOST),
    *(Sign.GONE, Sign.GONE_BADLY, Sign.CLOSED, Sign.CLOSED_BADLY),
)
# From each state (row), what each sign (column, as in _SIGNS) makes of it.
_TABLE = {
    State.RUNNING: "     -    -   stall stall -   unre -    dead dead fin  fail",
    State.STALLED: "     -    run -     -     run unre -    dead dead fin  fail",
    State.UNREACHABLE: " run  -   -     -     -   -    dead dead dead fin  fail",
    State.DEAD: "        run  -   -     -     -   -    -    -    -    fin  fail",
    State.FINISHED: "    -    -   -     -     -   -    -    -    fail -    -",
    State.FAILED: "      -    -   -     -     -   -    -    -    -    -    -",
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
    detail = {"reason": "no sign of life for 5 s", "silent_s": 5.1}
    assert (change.state, change.detail) == (State.UNREACHABLE, detail)
    assert _states(ward.look(6.0)) == []
    assert _states(ward.hear(1, None, 7.0, 70)) == [State.RUNNING]
    assert ward.heard_ns(1) == 70


def test_who_is_not_heard_for_very_long_is_given_up_and_comes_back_with_a_beat() -> None:
    ward = _ward(patience=Patience(dead_s=60.0))
    assert _states(ward.look(5.1)) == [State.UNREACHABLE]
    assert _states(ward.look(60.0)) == []
    (change,) = ward.look(60.5)
    detail = {"reason": "no sign of life for 60 s: given up", "silent_s": 60.5, "lost": True}
    assert (change.state, change.detail) == (State.DEAD, detail)
    assert _states(ward.look(70.0)) == []
    assert _states(ward.hear(1, None, 71.0, 0)) == [State.RUNNING]


def test_who_is_at_the_other_end_of_a_cut_link_is_given_up_never_where_nobody_wants_that() -> None:
    ward = _ward(patience=Patience(dead_s=None))
    assert _states(ward.look(5.1)) == [State.UNREACHABLE]
    assert _states(ward.look(1e6)) == []


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
    assert (change.state, change.detail) == (
        State.STALLED,
        {"reason": "no step after 50 for 11 s", "how": "still", "still_s": 11.0},
    )
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


class _Rank:
    """One rank of 100 ms steps before a ward, with a clock of its own."""

    def __init__(self, ward: Ward, writer: int = 1, condition: Condition | None = None) -> None:
        self.ward = ward
        self.writer = writer
        self.condition = condition
        self.at = 0.0
        self.step = 0
        self.marks = 0
        self.found: list[tuple[State, str]] = []
        self.reasons: list[str] = []

    def beat(
        self, phase: str = "step", longest_s: float = 0.0, expects_s: float = 0.0, still_s: float | None = None
    ) -> None:
        said = Said(phase, self.marks, longest_s, expects_s, still_s)
        self._take(self.ward.hear(self.writer, self.step, self.at, 0, said))

    def train(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.at += 1
            self.step += 10
            self.beat()
            self.look()

    def stand(self, seconds: float, phase: str = "step", longest_s: float = 0.0, expects_s: float = 0.0) -> None:
        for second in range(1, round(seconds) + 1):
            self.at += 1
            self.beat(phase, longest_s, max(0.0, expects_s - second))
            self.look()

    def work(self, seconds: float, *, every: int = 1) -> None:
        """Stands, while its thread is seen to get on each so many seconds."""
        for second in range(1, round(seconds) + 1):
            self.at += 1
            self.beat(still_s=float(second % every))
            self.look()

    def be_stuck(self, seconds: float) -> None:
        for second in range(1, round(seconds) + 1):
            self.at += 1
            self.beat(still_s=float(second))
            self.look()

    def be_silent(self, seconds: float) -> None:
        for _ in range(round(2 * seconds)):
            self.at += 0.5
            self.look()

    def visit(self, phase: str, seconds: float, longest_s: float = 0.0) -> None:
        self.marks += 1
        self.stand(seconds, phase, longest_s)
        self.marks += 1
        self.train(1)

    def look(self) -> None:
        self._take(self.ward.look(self.at, lambda _: self.condition))

    def _take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            assert change.writer == self.writer
            self.found.append((change.state, str(change.detail.get("how", ""))))
            self.reasons.append(str(change.detail.get("reason", "")))


def test_a_stuck_main_thread_of_100_ms_steps_is_stalled_within_15_s() -> None:
    rank = _Rank(_ward())
    rank.train(30)
    rank.visit("checkpoint", 60)
    rank.train(30)
    rank.stand(15)
    assert rank.found == [(State.STALLED, "still")]
    rank.train(1)
    assert rank.found[-1] == (State.RUNNING, "")


def test_who_hangs_before_its_pace_was_seen_is_judged_by_what_it_says_of_it() -> None:
    rank = _Rank(_ward())
    rank.train(2)
    rank.stand(19, longest_s=1.0)
    assert rank.found == []
    rank.stand(3, longest_s=1.0)
    assert rank.found == [(State.STALLED, "still")]


def test_who_says_nothing_of_its_pace_before_that_was_seen_is_not_judged() -> None:
    rank = _Rank(_ward())
    rank.train(2)
    rank.stand(60)
    assert rank.found == []


def test_a_first_pause_in_which_the_training_gets_on_is_no_stall() -> None:
    rank = _Rank(_ward())
    rank.train(30)
    rank.work(250)
    rank.train(10)
    rank.work(120, every=9)
    assert rank.found == []


def test_who_gets_stuck_in_a_pause_is_stalled_ten_seconds_after_its_last_move() -> None:
    rank = _Rank(_ward())
    rank.train(30)
    rank.work(60)
    rank.be_stuck(12)
    assert rank.found == [(State.STALLED, "still")]


@pytest.mark.parametrize("phase", ["init", "step"])
def test_who_has_no_pace_yet_may_work_for_hours_and_be_stuck_for_ten_minutes(phase: str) -> None:
    rank = _Rank(_ward())

    def stand(seconds: int, still: Callable[[int], float]) -> None:
        for second in range(1, seconds + 1):
            rank.at += 1
            rank.beat(phase, still_s=still(second))
            rank.look()

    stand(5000, lambda second: float(second % 100))
    stand(590, float)
    assert rank.found == []
    stand(620, float)
    assert rank.found == [(State.STALLED, "still")]


def test_a_loop_that_never_comes_to_a_step_is_stalled_at_last() -> None:
    rank = _Rank(_ward())
    rank.train(30)
    rank.work(299)
    assert rank.found == []
    rank.work(5)
    assert rank.found == [(State.STALLED, "still")]


def _pair() -> tuple[_Rank, _Rank]:
    """Two ranks before one ward, after 20 s of training; the second one looks for both."""
    ward = Ward(Patience())
    for writer in (1, 2):
        ward.admit(writer, State.RUNNING, 0.0, 0, group=7)
    first, second = _Rank(ward, 1), _Rank(ward, 2)
    first.look = lambda: None  # type: ignore[method-assign]
    for _ in range(20):
        first.train(1)
        second.train(1)
    return first, second


def _stand_together(
    pair: tuple[_Rank, _Rank], seconds: int, still: Callable[[int], tuple[float, float]]
) -> list[int]:
    """Who is called stalled, in order, while both say for how long they have been still."""
    found: list[int] = []
    for second in range(1, seconds + 1):
        for rank, still_s in zip(pair, still(second), strict=True):
            rank.at += 1
            rank.beat(still_s=still_s)
        changes = list(pair[1].ward.look(pair[1].at))
        assert {change.state for change in changes} <= {State.STALLED}
        found += [change.writer for change in changes]
    return found


def test_who_waits_for_one_that_gets_on_is_not_stalled_and_is_once_that_one_is_stuck() -> None:
    pair = _pair()
    assert _stand_together(pair, 60, lambda second: (0.0, second)) == []
    assert _stand_together(pair, 20, lambda second: (second, 60.0 + second)) == [1, 2]


def test_ranks_that_all_get_stuck_at_once_are_stalled_within_12_s_though_one_came_to_rest_a_little_later() -> None:
    assert sorted(_stand_together(_pair(), 12, lambda second: (second - 0.6, second))) == [1, 2]


def test_a_section_is_judged_by_the_times_before_and_named() -> None:
    rank = _Rank(_ward())
    rank.train(10)
    rank.visit("data", 1)
    rank.marks += 1
    rank.stand(15, "data", longest_s=0.5)
    assert rank.reasons == [f"no step after {rank.step} for 11 s, in data"]


def test_a_first_checkpoint_has_its_time_and_a_later_one_three_times_as_much() -> None:
    rank = _Rank(_ward())
    rank.train(10)
    rank.visit("checkpoint", 500)
    rank.visit("checkpoint", 1400, longest_s=500.0)
    assert rank.found == []
    rank.marks += 1
    rank.stand(4300, "checkpoint", longest_s=1400.0)
    assert rank.found == [(State.STALLED, "still")]


def test_what_is_announced_is_waited_for_and_no_longer() -> None:
    rank = _Rank(_ward())
    rank.train(10)
    rank.stand(60, expects_s=60)
    rank.train(10)
    rank.stand(60, expects_s=60)
    assert rank.found == []
    rank.stand(15)
    assert rank.found == [(State.STALLED, "still")]


def test_an_announcement_is_over_with_the_next_step() -> None:
    rank = _Rank(_ward())
    rank.train(10)
    rank.stand(5, expects_s=600)
    rank.train(5)
    rank.stand(20)
    assert rank.found == [(State.STALLED, "still")]


def test_before_the_first_step_only_an_announcement_can_run_out() -> None:
    rank = _Rank(_ward())
    rank.stand(3000, "init")
    assert rank.found == []
    rank.stand(60, "init", expects_s=60)
    assert rank.found == []
    rank.stand(15, "init")
    assert rank.found == [(State.STALLED, "still")]


def test_entering_and_leaving_sections_is_progress() -> None:
    rank = _Rank(_ward())
    rank.train(10)
    for _ in range(1000):
        rank.marks += 2
        rank.stand(1, "batch of the evaluation", longest_s=0.2)
    assert rank.found == []


def test_who_waits_for_the_checkpoint_of_another_is_not_stalled() -> None:
    ward = Ward(Patience())
    for writer in (1, 2):
        ward.admit(writer, State.RUNNING, 0.0, 0, group=7)
    saves, waits = _Rank(ward, 1), _Rank(ward, 2)
    # Both before one ward: its looks are asked for by the last only.
    saves.look = lambda: None  # type: ignore[method-assign]

    def both(seconds: int, phase: str, step: int) -> None:
        for _ in range(seconds):
            for rank in (saves, waits):
                rank.step += step
                rank.at += 1
            saves.beat(phase, longest_s=60.0 if phase == "checkpoint" else 0.0)
            waits.beat("sync", longest_s=0.5)
            waits.look()

    both(20, "step", 10)
    saves.marks += 1
    both(60, "checkpoint", 0)
    saves.marks += 1
    both(9, "step", 0)
    assert waits.found == []
    both(5, "sync", 0)
    assert waits.found == [(State.STALLED, "still")]


@pytest.mark.parametrize(
    ("condition", "how", "says", "seconds"),
    [
        (Condition("T"), "stopped", "stopped by a signal (SIGSTOP) for 6 s", 6),
        (Condition("t", 77), "debugger", "held by a debugger (process 77) for 6 s", 6),
        (Condition("R"), "silent", "C code holds the interpreter", 11),
        (Condition("D"), "silent", "it waits for a disk", 11),
    ],
)
def test_silence_of_a_process_that_is_there_is_told_from_death(
    condition: Condition, how: str, says: str, seconds: float
) -> None:
    rank = _Rank(_ward(), condition=condition)
    rank.train(30)
    rank.be_silent(seconds)
    assert rank.found == [(State.STALLED, how)]
    assert says in rank.reasons[0]
    rank.be_silent(100)
    assert len(rank.found) == 1
    rank.train(30)  # by its first beat, whatever its step does
    assert rank.found == [(State.STALLED, how), (State.RUNNING, "")]


def test_who_ran_before_its_host_was_started_again_is_dead_unless_it_is_heard() -> None:
    rank = _Rank(_ward(), condition=Condition("X"))
    rank.train(10)  # another host may have the same name
    assert rank.found == []
    rank.be_silent(6)
    assert [state for state, _ in rank.found] == [State.DEAD]
    assert rank.reasons == ["its host has been started again"]


def test_a_process_that_is_there_is_never_unreachable_and_has_its_time_before_its_first_step() -> None:
    rank = _Rank(_ward(), condition=Condition("S"))
    rank.beat("init")
    rank.be_silent(50)
    assert rank.found == []
    rank.be_silent(20)
    assert rank.found == [(State.STALLED, "silent")]


def test_a_silence_that_was_announced_is_none() -> None:
    for condition in (None, Condition("R")):
        rank = _Rank(_ward(), condition=condition)
        rank.train(10)
        rank.stand(2, expects_s=62)
        rank.be_silent(59)
        assert rank.found == []
        rank.be_silent(20)
        assert [state for state, _ in rank.found] == [State.STALLED if condition else State.UNREACHABLE]


def test_a_debugger_is_named_where_the_publisher_goes_on() -> None:
    rank = _Rank(_ward(), condition=Condition("S", 99))
    rank.train(10)
    rank.stand(15)
    assert rank.found == [(State.STALLED, "debugger")]
    assert rank.reasons[0].endswith("under a debugger (process 99)")


@given(
    step_s=st.floats(0.02, 5.0),
    parts=st.lists(
        st.tuples(
            st.sampled_from(["train", "checkpoint", "announced", "pause", "away", "evaluation"]),
            st.floats(20.0, 60.0),
        ),
        min_size=1,
        max_size=8,
    ),
    jitter=st.floats(0.5, 1.0),
    is_visible=st.booleans(),
)
def test_no_healthy_rank_is_ever_accused(
    step_s: float, parts: list[tuple[str, float]], jitter: float, is_visible: bool
) -> None:
    """Steps with jitter, checkpoints and evaluations in sections, announced silences, a collector that pauses or
    starts again."""
    condition = Condition("S") if is_visible else None
    ward = _ward()
    at, step, marks, steps_at = 0.0, 0, 0, 0.0
    longest: dict[str, float] = {}
    expects_until = 0.0

    def live(seconds: float, phase: str) -> None:
        nonlocal at, step, steps_at
        end = at + seconds
        while at < end:
            at = min(at + 1.0, end)
            while phase == "step" and steps_at + step_s * jitter <= at:
                steps_at += step_s * (jitter if step % 2 else 2 - jitter)
                step += 1
            said = Said(phase, marks, longest.get(phase, 0.0), max(0.0, expects_until - at))
            assert _states(ward.hear(1, step, at, 0, said)) == []
            assert _states(ward.look(at, lambda _: condition)) == []
        if phase != "step":
            steps_at = at

    live(10, "step")
    for what, seconds in parts:
        if what == "pause":
            ward.excuse(seconds)
            at += seconds
            steps_at += seconds
        elif what == "away":
            ward = Ward(Patience())
            at += seconds
            ward.admit(1, State.RUNNING, at, 0)
            live(seconds, "step")
        elif what == "announced":
            expects_until = at + seconds
            live(seconds, "announced")
            expects_until = 0.0
        elif what == "train":
            live(seconds, "step")
        else:
            marks += 1
            live(seconds, what)
            marks += 1
            longest[what] = max(longest.get(what, 0.0), seconds)
            live(5, "step")


@given(st.lists(st.sampled_from(["beat", "still", "silent", "stopped", "step"]), max_size=40), st.booleans())
def test_nobody_is_dead_but_by_signs_of_its_process(events: list[str], is_visible: bool) -> None:
    rank = _Rank(_ward(), condition=Condition("S") if is_visible else None)
    rank.train(5)
    for event in events:
        if event == "stopped":
            rank.condition = Condition("T") if is_visible else None
        acts: dict[str, Callable[[], None]] = {
            "beat": rank.beat,
            "still": lambda: rank.stand(15),
            "silent": lambda: rank.be_silent(15),
            "stopped": lambda: rank.be_silent(10),
            "step": lambda: rank.train(1),
        }
        acts[event]()
    assert {state for state, _ in rank.found} <= {State.RUNNING, State.STALLED, State.UNREACHABLE}
    assert not (is_visible and any(state is State.UNREACHABLE for state, _ in rank.found))
    rank.train(1)
    assert rank.ward.state(1) is State.RUNNING


def test_each_state_can_be_come_to_from_running() -> None:
    reached, waiting = {State.RUNNING}, [State.RUNNING]
    while waiting:
        for state in TRANSITIONS[waiting.pop()].values():
            if state not in reached:
                reached.add(state)
                waiting.append(state)
    assert reached == set(State) - {State.EXPECTED}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, Said()),
        (
            {"phase": "data", "marks": 3, "longest": 1, "expects": 2.5},
            Said("data", 3, 1.0, 2.5),
        ),
        ({"phase": 7, "marks": "many", "longest": float("nan"), "expects": -1}, Said()),
        ({"longest": 1e300, "expects": True}, Said(expects_s=1.0)),
    ],
)
def test_what_a_beat_says_is_taken_where_it_makes_sense(status: dict[str, Any], said: Said) -> None:
    assert said_in(status) == said


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
        (
            {"exception": {"type": "KeyboardInterrupt", "message": ""}},
            Sign.CLOSED_BADLY,
            {
                "exit_code": None,
                "exception": {"type": "KeyboardInterrupt", "message": ""},
                "reason": "KeyboardInterrupt",
            },
        ),
    ],
)
def test_a_close_tells_how_it_ended(end: dict[str, Any], sign: Sign, detail: dict[str, Any]) -> None:
    assert sign_of_close(end) == (sign, detail)
