"""How many alerts go out: the first at once, no storm whatever comes, and a recovery only after its alert."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given, settings
from hypothesis import strategies as st

from allranks_collector.alerts.limits import GATHER_S, Limits
from allranks_collector.alerts.rules import RULES, Group, Happening

_INTERVAL_S = 600.0
_LATE = 1e9


def _of(rule: str, subject: Hashable, run: int = 1) -> Happening:
    writer = subject if isinstance(subject, int) else None
    return Happening(RULES[rule], run, subject, f"is {rule}", "", writer, writer)


def _due(limits: Limits, now: float) -> list[Group]:
    return list(limits.due(now))


def test_ranks_that_die_together_are_one_message_that_names_the_first() -> None:
    limits = Limits(_INTERVAL_S)
    for number, rank in enumerate((17, *(other for other in range(64) if other != 17))):
        limits.bad(_of("failed" if number else "dead", rank), 100.0 + number / 100)
    assert limits.next_at() == 100.0 + GATHER_S
    assert _due(limits, 100.0 + GATHER_S - 0.01) == []
    (group,) = _due(limits, 100.0 + GATHER_S)
    assert (group.first.subject, len(group.happenings)) == (17, 64)


def test_what_comes_within_the_interval_waits_and_comes_in_the_next() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("stalled", 1), 0.0)
    assert len(_due(limits, 2.0)) == 1
    limits.bad(_of("stalled", 2), 10.0)
    assert _due(limits, 601.9) == []
    assert limits.next_at() == 602.0
    (group,) = _due(limits, 602.0)
    assert [one.subject for one in group.happenings] == [2]


def test_what_was_over_before_it_could_be_told_is_counted_in_the_next() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("stalled", 1), 0.0)
    assert len(_due(limits, 2.0)) == 1
    limits.bad(_of("stalled", 2), 10.0)
    limits.good(_of("stalled", 2), 20.0)
    limits.bad(_of("stalled", 3), 30.0)
    (group,) = _due(limits, 602.0)
    assert ([one.subject for one in group.happenings], group.more) == ([3], 1)


def test_a_rank_that_is_back_at_once_is_not_told() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("unreachable", 1), 0.0)
    limits.good(_of("unreachable", 1), 1.0)
    assert _due(limits, _LATE) == []


def test_a_recovery_is_told_once_and_only_after_its_alert() -> None:
    limits = Limits(_INTERVAL_S)
    limits.good(_of("stalled", 1), 0.0)
    limits.bad(_of("stalled", 1), 1.0)
    assert [group.is_recovery for group in _due(limits, 3.0)] == [False]
    limits.good(_of("stalled", 1), 50.0)
    assert [group.is_recovery for group in _due(limits, 52.0)] == [True]
    limits.good(_of("stalled", 1), 60.0)
    assert _due(limits, _LATE) == []


def test_a_rank_that_is_stalled_then_unreachable_then_well_recovers_once() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("stalled", 1), 0.0)
    _due(limits, 2.0)
    limits.bad(_of("unreachable", 1), 10.0)
    _due(limits, 12.0)
    limits.good(_of("unreachable", 1), 20.0)
    assert [group.is_recovery for group in _due(limits, _LATE)] == [True]


def test_the_end_of_a_run_and_the_ranks_that_made_it_are_one_message() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("dead", 17), 0.0)
    limits.bad(_of("failed", 3), 1.0)
    limits.bad(_of("run-failed", "attempt 1"), 1.5)
    (group,) = _due(limits, 2.0)
    assert (group.first.rule.name, [one.subject for one in group.causes]) == ("run-failed", [17, 3])
    assert _due(limits, _LATE) == []


def test_what_may_yet_turn_out_to_be_nothing_can_be_taken_back() -> None:
    limits = Limits(_INTERVAL_S)
    limits.bad(_of("dead", 1), 15.0)
    limits.bad(_of("run-failed", 1), 15.0)
    assert _due(limits, 10.0) == []
    limits.drop(1, 1)
    limits.withdraw(1, "end", 1)
    assert _due(limits, _LATE) == []


def test_all_runs_together_are_limited_and_nothing_is_lost() -> None:
    limits = Limits(_INTERVAL_S, most_in_all=3)
    for run in range(5):
        limits.bad(_of("dead", 1, run), 0.0)
    assert len(_due(limits, 2.0)) == 3
    assert limits.next_at() == 602.0
    assert len(_due(limits, 602.0)) == 2


def test_a_flood_of_own_alerts_is_bounded_and_counted() -> None:
    limits = Limits(_INTERVAL_S)
    told = 0
    for number in range(100_000):
        limits.bad(_of("user", f"alert {number}"), number / 1000)
        for group in limits.due(number / 1000):
            told += len(group.happenings) + group.more
    (rest,) = _due(limits, _LATE)
    assert len(rest.happenings) <= 100
    assert told + len(rest.happenings) + rest.more == 100_000


_EVENTS = st.lists(
    st.tuples(
        st.integers(0, 120),  # how long after the one before
        st.sampled_from(["dead", "failed", "stalled", "unreachable", "good", "drop", "nan", "user", "run-failed"]),
        st.integers(0, 3),  # rank
        st.integers(1, 2),  # run
    ),
    max_size=60,
)


@given(_EVENTS)
@settings(max_examples=100)
def test_whatever_comes_there_is_no_storm_and_the_first_is_never_silent(
    happenings: list[tuple[int, str, int, int]],
) -> None:
    limits, now = Limits(_INTERVAL_S, most_in_all=1000), 0.0
    sent: dict[tuple[int, str, bool], list[float]] = {}
    believed: set[tuple[int, int]] = set()  # the ranks of which somebody has been told that they are not well
    expected: set[tuple[int, str]] = set()

    def send(until: float) -> None:
        while (at := limits.next_at()) <= until:
            groups = _due(limits, at)
            assert groups, "it says that something is due, and nothing is"
            for group in groups:
                first = group.first
                sent.setdefault((first.run, first.rule.family, group.is_recovery), []).append(at)
                for one in (*group.happenings, *group.causes):
                    if group.is_recovery:
                        assert (one.run, one.subject) in believed, "a recovery without an alert"
                    elif isinstance(one.subject, int) and one.rule.lasts:
                        believed.add((one.run, one.subject))
                    expected.discard((one.run, one.rule.family))

    for pause_s, what, rank, run in happenings:
        now += pause_s
        send(now)
        if what == "good":
            limits.good(_of("unreachable", rank, run), now)
        elif what == "drop":
            limits.drop(run, rank)
        else:
            subject: Hashable = (what, rank, now) if what == "user" else (what, rank)
            is_of_rank = RULES[what].lasts
            limits.bad(_of(what, rank if is_of_rank else subject, run), now)
            family = RULES[what].family
            if not is_of_rank and (run, family, False) not in sent:
                expected.add((run, family))
    send(now + 100 * _INTERVAL_S)
    assert not limits.is_waiting
    assert expected == set(), "the first of its kind was not told"
    for (_, family, is_recovery), times in sent.items():
        burst = 1 if is_recovery else max(rule.burst for rule in RULES.values() if rule.family == family)
        # A recovery counts under the family that it is told in, which may be several of one name here.
        most = burst * (3 if is_recovery else 1)
        assert all(later - earlier >= _INTERVAL_S for earlier, later in zip(times, times[most:], strict=False))
