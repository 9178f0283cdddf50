"""The distance of two clocks: the smallest excess of arrivals over sendings, as the clocks are now."""

from __future__ import annotations

from allranks_collector.clocks import WINDOW_NS, Clocks

S, MS = 10**9, 10**6
T0 = 1_700_000_000 * S


def test_of_many_delays_the_smallest_is_believed() -> None:
    clocks = Clocks()
    told = [clocks.see(1, T0 + n * S + delay * MS, T0 + n * S) for n, delay in enumerate((40, 90, 5, 4, 300, 8))]
    assert told == [40 * MS, None, 5 * MS, None, None, None]


def test_a_clock_five_minutes_off_is_found_with_the_first_message() -> None:
    for off in (300 * S, -300 * S):
        assert Clocks().see(1, T0 + 3 * MS, T0 - off) == off + 3 * MS


def test_a_clock_that_is_set_back_is_found_out_after_a_while() -> None:
    clocks = Clocks()
    told = [clocks.see(1, T0 + n * S, T0 + n * S) for n in range(100)]
    told += [clocks.see(1, T0 + n * S, T0 + n * S - 7 * S) for n in range(100, 100 + 2 * WINDOW_NS // S + 1)]
    assert [offset for offset in told if offset is not None] == [0, 7 * S]


def test_writers_have_clocks_of_their_own_and_are_forgotten() -> None:
    clocks = Clocks()
    assert clocks.see(1, T0, T0) == 0
    assert clocks.see(2, T0, T0 - S) == S
    clocks.forget(1)
    assert clocks.see(1, T0 + 5 * S, T0) == 5 * S
