"""Whose turn it is to send a file: few at a time, small ones beside large ones, and nobody for ever."""

from __future__ import annotations

from allranks_collector.turns import IDLE_S, LARGE_BYTES, MAX_WAITING, PATIENCE_S, TURNS, Turns

LARGE = LARGE_BYTES + 1


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_only_so_many_have_a_turn_and_the_others_wait() -> None:
    turns = Turns()
    assert [turns.ask(_name(number), 1, 0.0) for number in range(TURNS + 2)] == [True] * TURNS + [False] * 2
    assert turns.is_waiting(_name(TURNS))
    turns.leave(_name(0))
    assert turns.advance(1.0) == ([_name(TURNS)], [])
    assert turns.has(_name(TURNS))
    assert not turns.is_waiting(_name(TURNS))


def test_who_has_a_turn_keeps_it_when_it_asks_again() -> None:
    turns = Turns()
    for number in range(TURNS):
        turns.ask(_name(number), 1, 0.0)
    assert turns.ask(_name(0), 1, 5.0)
    assert turns.advance(5.0) == ([], [])


def test_one_turn_is_left_to_small_files() -> None:
    turns = Turns()
    assert [turns.ask(_name(number), LARGE, 0.0) for number in range(TURNS)] == [True] * (TURNS - 1) + [False]
    # The small one passes the large one that waits: that one could not go.
    assert turns.ask(_name(9), LARGE_BYTES, 0.0)
    turns.leave(_name(9))
    assert turns.advance(0.0) == ([], [])


def test_the_line_is_kept_in_order() -> None:
    turns = Turns()
    for number in range(TURNS + 3):
        turns.ask(_name(number), 1, 0.0)
    turns.ask(_name(TURNS), 1, 1.0)  # asks again, and stands where it stood
    turns.leave(_name(0))
    assert turns.advance(1.0)[0] == [_name(TURNS)]


def test_who_sends_nothing_loses_the_turn_to_who_waits() -> None:
    turns = Turns()
    for number in range(TURNS + 1):
        turns.ask(_name(number), 1, 0.0)
    turns.hear(_name(1), IDLE_S)
    turns.ask(_name(TURNS), 1, IDLE_S)
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
        turns.ask(_name(number), 1, 0.0)
    for number in range(TURNS):
        turns.hear(_name(number), PATIENCE_S)
    assert turns.advance(PATIENCE_S + 1) == ([], [_name(TURNS)])


def test_the_line_is_bounded() -> None:
    turns = Turns()
    for number in range(TURNS + MAX_WAITING + 5):
        turns.ask(_name(number), 1, 0.0)
    assert turns.is_waiting(_name(TURNS + MAX_WAITING - 1))
    assert not turns.is_waiting(_name(TURNS + MAX_WAITING))


def test_who_leaves_the_line_is_forgotten() -> None:
    turns = Turns()
    for number in range(TURNS + 1):
        turns.ask(_name(number), 1, 0.0)
    turns.leave(_name(TURNS))
    turns.leave(_name(0))
    assert turns.advance(0.0) == ([], [])
