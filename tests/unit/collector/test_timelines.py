"""Spans of states: in order, without a gap, few enough, and true at both ends."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.timelines import Span, spans_of


def test_each_state_lasts_until_the_next_and_the_last_until_now() -> None:
    found = spans_of([(10, "running"), (30, "stalled"), (35, "running")], 0, 50, before="expected")
    assert found == [
        Span("expected", 0, 10),
        Span("running", 10, 30),
        Span("stalled", 30, 35),
        Span("running", 35, 50),
    ]


def test_what_is_learned_later_is_believed() -> None:
    """It closed at 20; that it was gone at 21 had been seen before its CLOSE was read."""
    found = spans_of([(0, "running"), (21, "dead"), (20, "finished")], 0, 30, before="expected")
    assert found == [Span("running", 0, 20), Span("finished", 20, 30)]


def test_of_too_many_spans_the_shortest_are_taken_for_the_one_before() -> None:
    changes = [(0, "running"), (50, "stalled"), (51, "running"), (70, "unreachable"), (90, "running"), (99, "dead")]
    found = spans_of(changes, 0, 100, before="expected", most=4)
    assert found == [
        Span("running", 0, 70),
        Span("unreachable", 70, 90),
        Span("running", 90, 99),
        Span("dead", 99, 100),
    ]


_CHANGES = st.lists(st.tuples(st.integers(-20, 120), st.sampled_from("abcd")), max_size=40)


@given(_CHANGES, st.integers(2, 8))
def test_spans_cover_the_time_once_and_end_with_what_is_so_now(changes: list[tuple[int, str]], most: int) -> None:
    found = spans_of(changes, 0, 200, before="expected", most=most)
    assert (found[0].from_ns, found[-1].until_ns) == (0, 200)
    assert all(one.until_ns == next_.from_ns and one.state != next_.state for one, next_ in pairwise(found))
    assert all(span.from_ns < span.until_ns for span in found)
    assert len(found) <= most
    assert found[-1].state == (changes[-1][1] if changes else "expected")
