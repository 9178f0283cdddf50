"""A bound on the log."""

from __future__ import annotations

import logging

from allranks_collector.log_limit import LineLimit


def _record(level: int = logging.INFO, text: str = "line %d") -> logging.LogRecord:
    return logging.LogRecord("name", level, "path", 1, text, (7,), None)


def test_a_burst_comes_through_and_then_a_few_lines_a_second() -> None:
    now = 0.0
    limit = LineLimit(burst=3, rate=2.0, clock=lambda: now)
    assert [limit.filter(_record()) for _ in range(6)] == [True] * 3 + [False] * 3
    now = 1.0
    assert [limit.filter(_record()) for _ in range(4)] == [True, True, False, False]


def test_the_next_line_tells_how_many_were_left_out() -> None:
    now = 0.0
    limit = LineLimit(burst=1, rate=1.0, clock=lambda: now)
    for _ in range(5):
        limit.filter(_record())
    now = 1.0
    record = _record()
    assert limit.filter(record)
    assert record.getMessage() == "(4 lines left out) line 7"


def test_errors_always_come_through() -> None:
    limit = LineLimit(burst=1, rate=0.0, clock=lambda: 0.0)
    assert [limit.filter(_record(logging.ERROR)) for _ in range(3)] == [True] * 3
