"""When a file is ready: a table of clocks."""

from __future__ import annotations

import pytest

from allranks_bus.files.source import SMALL_BYTES, State, Writers
from allranks_bus.files.watch import Watch

KEY = ("/run/a", "a")
WALL_NS = 1_700_000_000_000_000_000
NONE, SOME, UNKNOWN = Writers.NONE, Writers.SOME, Writers.UNKNOWN
LARGE = SMALL_BYTES + 1


def _modified(ago_s: float, size: int = LARGE) -> State:
    return State(size, WALL_NS - round(ago_s * 1e9), 1)


@pytest.mark.parametrize(
    ("writers", "seen_s", "modified_s", "ready"),
    [
        (NONE, 0.0, 10.0, True),  # closed long ago
        (NONE, 0.0, 0.1, False),  # by a clock that may be another's
        (NONE, 0.4, 0.1, True),  # but it has been left alone for as long as we look
        (NONE, 0.1, -50.0, False),  # of the future
        (NONE, 0.4, -50.0, True),
        (SOME, 0.0, 10.0, False),  # open, and only its own clock says that it is quiet
        (SOME, 4.9, 10.0, False),
        (SOME, 5.1, 10.0, True),
        (UNKNOWN, 4.9, 10.0, False),
        (UNKNOWN, 5.1, 10.0, True),
    ],
)
def test_a_file_is_ready_once_it_is_closed_and_quiet(
    writers: Writers, seen_s: float, modified_s: float, ready: bool
) -> None:
    watch = Watch()
    watch.see({KEY: _modified(modified_s)}, 100.0)
    assert watch.is_ready(KEY, 100.0 + seen_s, WALL_NS, lambda: writers) is ready


def test_a_file_in_a_new_state_is_quiet_anew() -> None:
    watch = Watch()
    watch.see({KEY: _modified(0.0)}, 100.0)
    watch.see({KEY: _modified(-1.0)}, 104.0)
    assert not watch.is_ready(KEY, 104.1, WALL_NS, lambda: SOME)
    assert watch.is_ready(KEY, 109.1, WALL_NS, lambda: SOME)


def test_a_small_file_that_never_rests_is_sent_now_and_then() -> None:
    """A text log that is written to every second, say."""
    watch = Watch()
    ready: list[int] = []
    for now in range(100):
        watch.see({KEY: _modified(-now, size=1000 + now)}, float(now))
        if watch.is_ready(KEY, float(now), WALL_NS + now * 10**9, lambda: SOME):
            ready.append(now)
            watch.sent(KEY, float(now))
    assert ready == [30, 60, 90]


def test_a_large_file_that_never_rests_is_not() -> None:
    watch = Watch()
    for now in range(100):
        watch.see({KEY: _modified(-now)}, float(now))
        assert not watch.is_ready(KEY, float(now), WALL_NS + now * 10**9, lambda: SOME)


def test_nobody_is_asked_about_a_file_that_is_not_quiet() -> None:
    """To ask is to open it."""
    watch = Watch()
    watch.see({KEY: _modified(0.0)}, 100.0)

    def ask() -> Writers:
        raise AssertionError

    assert not watch.is_ready(KEY, 100.0, WALL_NS, ask)


@pytest.mark.parametrize(
    ("modified_s", "flush_s", "ready"), [(0.01, 0.0, False), (0.03, 0.0, True), (0.0, 0.31, True), (-9.0, 0.31, True)]
)
def test_at_a_flush_a_file_is_sent_as_it_is(modified_s: float, flush_s: float, ready: bool) -> None:
    """But not within one tick of the clock that tells its states apart, unless that is all the time."""
    watch = Watch()
    watch.see({KEY: _modified(modified_s)}, 100.0)
    assert watch.is_ready_at_flush(KEY, WALL_NS, flush_s) is ready


def test_a_file_that_is_gone_is_forgotten() -> None:
    watch = Watch()
    watch.see({KEY: _modified(0.0)}, 100.0)
    watch.see({}, 101.0)
    watch.sent(KEY, 101.0)
    watch.see({KEY: _modified(0.0)}, 200.0)
    assert not watch.is_ready(KEY, 204.0, WALL_NS, lambda: SOME)
