"""Whose turn it is to send a file: few at a time, small ones beside large ones, and nobody for ever."""

from __future__ import annotations

from allranks_collector.turns import (
    IDLE_S,
    LEAST_BYTES,
    MAX_LARGE,
    MAX_WAITING,
    PATIENCE_S,
    ROOM_BYTES,
    SLICE_S,
    WINDOW_BYTES,
    Turns,
)

LARGE = WINDOW_BYTES + 1
# Of files that fill a window, so many have a turn.
TURNS = ROOM_BYTES // WINDOW_BYTES


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_only_so_many_have_a_turn_and_the_others_wait() -> None:
    turns = Turns()
    asked = [turns.ask(_name(number), WINDOW_BYTES, 0.0) for number in range(TURNS + 2)]
    assert asked == [True] * TURNS + [False] * 2
    assert turns.is_waiting(_name(TURNS))
    turns.leave(_name(0))
    assert turns.advance(1.0) == ([_name(TURNS)], [])
    assert turns.has(_name(TURNS))
    assert not turns.is_waiting(_name(TURNS))


def test_of_small_files_many_have_a_turn() -> None:
    turns = Turns()
    most = ROOM_BYTES // LEAST_BYTES
    assert sum(turns.ask(_name(number), number % 2, 0.0) for number in range(most + 5)) == most


def test_what_has_left_has_given_its_room_back() -> None:
    turns = Turns()
    for _ in range(3):
        for number, size in enumerate([LARGE, LARGE, LARGE, 1000, WINDOW_BYTES - 2 * LEAST_BYTES, 0]):
            assert turns.ask(_name(number), size, 0.0)
        assert not turns.ask(_name(9), 1, 0.0)
        for number in range(10):
            turns.leave(_name(number))


def test_who_has_a_turn_keeps_it_when_it_asks_again() -> None:
    turns = Turns()
    for number in range(TURNS):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    assert turns.ask(_name(0), WINDOW_BYTES, 5.0)
    assert turns.advance(5.0) == ([], [])


def test_some_room_is_left_to_files_that_are_not_large() -> None:
    turns = Turns()
    asked = [turns.ask(_name(number), LARGE, 0.0) for number in range(MAX_LARGE + 1)]
    assert asked == [True] * MAX_LARGE + [False]
    # The small one passes the large one that waits: that one could not go.
    assert turns.ask(_name(9), WINDOW_BYTES, 0.0)
    turns.leave(_name(9))
    assert turns.advance(0.0) == ([], [])
    turns.leave(_name(0))
    assert turns.advance(0.0) == ([_name(MAX_LARGE)], [])


def test_nobody_is_passed_for_ever() -> None:
    """One that needs more room than there is has it as soon as there is, whoever else asks meanwhile."""
    turns = Turns()
    for number in range(MAX_LARGE):
        turns.ask(_name(number), LARGE, 0.0)
    turns.ask(_name(10), 1, 0.0)
    assert not turns.ask(_name(11), WINDOW_BYTES, 0.0)
    assert not turns.ask(_name(12), 1, 0.0)
    turns.leave(_name(10))
    assert turns.advance(0.0) == ([_name(11)], [])
    turns.leave(_name(11))
    assert turns.advance(0.0) == ([_name(12)], [])


def test_the_line_is_kept_in_order() -> None:
    turns = Turns()
    for number in range(TURNS + 3):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    turns.ask(_name(TURNS), WINDOW_BYTES, 1.0)  # asks again, and stands where it stood
    turns.leave(_name(0))
    assert turns.advance(1.0)[0] == [_name(TURNS)]


def test_who_sends_nothing_loses_the_turn_to_who_waits() -> None:
    turns = Turns()
    for number in range(TURNS + 1):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    turns.hear(_name(1), IDLE_S)
    turns.ask(_name(TURNS), WINDOW_BYTES, IDLE_S)
    come, gone = turns.advance(IDLE_S + 1)
    assert come == [_name(TURNS)]
    assert gone == [_name(0), _name(2), _name(3)]
    assert turns.has(_name(1))


def test_where_nobody_waits_a_turn_lasts_longer() -> None:
    turns = Turns()
    turns.ask(_name(0), 1, 0.0)
    assert turns.advance(IDLE_S + 1) == ([], [])
    assert turns.advance(PATIENCE_S + 1) == ([], [_name(0)])


def test_who_waits_and_asks_no_more_leaves_the_line() -> None:
    turns = Turns()
    for number in range(TURNS + 1):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    for number in range(TURNS):
        turns.hear(_name(number), PATIENCE_S)
    assert turns.advance(PATIENCE_S + 1) == ([], [_name(TURNS)])


def test_the_line_is_bounded() -> None:
    turns = Turns()
    for number in range(TURNS + MAX_WAITING + 5):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    assert turns.is_waiting(_name(TURNS + MAX_WAITING - 1))
    assert not turns.is_waiting(_name(TURNS + MAX_WAITING))


def test_who_leaves_the_line_is_forgotten() -> None:
    turns = Turns()
    for number in range(TURNS + 1):
        turns.ask(_name(number), WINDOW_BYTES, 0.0)
    turns.leave(_name(TURNS))
    turns.leave(_name(0))
    assert turns.advance(0.0) == ([], [])


def test_large_files_take_turns() -> None:
    turns = Turns()
    for number in range(MAX_LARGE + 2):
        turns.ask(_name(number), LARGE, 0.0)
    assert turns.advance(SLICE_S - 1) == ([], [])
    for number in range(MAX_LARGE + 2):
        turns.hear(_name(number), SLICE_S)
        turns.ask(_name(number), LARGE, SLICE_S)
    # Two wait, so two make room; and they go to the end of the line.
    assert turns.advance(SLICE_S) == ([_name(MAX_LARGE), _name(MAX_LARGE + 1)], [])
    assert [turns.has(_name(number)) for number in range(MAX_LARGE)] == [False, False, True]
    assert turns.is_waiting(_name(0))
    for number in range(MAX_LARGE + 2):
        turns.ask(_name(number), LARGE, 2 * SLICE_S)
    assert turns.advance(2 * SLICE_S) == ([_name(0), _name(1)], [])


def test_a_large_file_is_not_stopped_for_nobody() -> None:
    turns = Turns()
    turns.ask(_name(0), LARGE, 0.0)
    turns.hear(_name(0), 5 * SLICE_S)
    assert turns.advance(5 * SLICE_S) == ([], [])
    assert turns.has(_name(0))
