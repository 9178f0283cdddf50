"""A rank's log: the short way of metrics into the spool, and that each segment explains itself."""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from allranks import _log
from allranks._log import RankLog
from allranks_bus import events, records
from allranks_bus.events import Kind

_DATA = {"loss": 0.5, "accuracy": 0.25}


@pytest.fixture
def log(tmp_path: Path) -> Generator[RankLog]:
    """A log with segments of 10 kB."""
    made = RankLog(tmp_path, bytes(16), {"run": "r"}, cap_bytes=40_000)
    # So that none of what has been written goes.
    made._cap_bytes = 1 << 30  # pyright: ignore[reportPrivateUsage]
    yield made
    made.close()


def _log_metrics(log: RankLog, data: dict[str, float], step: int | None = None) -> None:
    """As `Run.log` does."""
    try:
        log.metrics(data, step)
    except KeyError:
        assert log.define(tuple(data))
        log.metrics(data, step)


def _segments(log: RankLog) -> Iterator[list[list[Any]]]:
    for path in sorted(log.directory.glob("*.seg")):
        content = path.read_bytes()
        yield [events.unpack(content[begin:end]) for begin, end in records.scan(content)]


def _metrics(log: RankLog) -> list[tuple[int, dict[str, float]]]:
    """Step and numbers of each METRICS record, by the keysets that its own segment defines before it."""
    found: list[tuple[int, dict[str, float]]] = []
    for segment in _segments(log):
        assert segment[0][0] == Kind.OPEN
        keysets: dict[int, list[str]] = {}
        for event in segment:
            if event[0] == Kind.KEYSET:
                keysets[event[2]] = event[3]
            elif event[0] == Kind.METRICS:
                names = keysets[event[3]]
                found.append((event[2], dict(zip(names, struct.unpack(f">{len(names)}d", event[4]), strict=True))))
    return found


def test_metrics_come_back(log: RankLog) -> None:
    """With the program's step, or the next one."""
    for step in (None, None, 10, None):
        _log_metrics(log, _DATA, step)
    assert _metrics(log) == [(0, _DATA), (1, _DATA), (10, _DATA), (11, _DATA)]


@pytest.mark.parametrize("step", [np.int64(126), np.int8(126), torch.tensor(126)], ids=["int64", "int8", "torch"])
def test_a_step_of_another_librarys_type_is_remembered_as_a_plain_number(log: RankLog, step: Any) -> None:
    _log_metrics(log, _DATA, step)
    assert type(log.step) is int
    for _ in range(2):
        _log_metrics(log, _DATA)
    assert [at for at, _ in _metrics(log)] == [126, 127, 128]


def test_what_is_no_mapping_is_not_gone_through(log: RankLog) -> None:
    with pytest.raises(AttributeError):
        log.metrics(itertools.count(), 0)  # type: ignore[arg-type]


def test_names_that_are_not_defined_are_a_key_error(log: RankLog) -> None:
    """In this very order, which is what the keyset is."""
    assert log.define(("a", "b"))
    log.metrics({"a": 1.0, "b": 2.0}, 0)
    with pytest.raises(KeyError):
        log.metrics({"b": 2.0, "a": 1.0}, 0)


@pytest.mark.parametrize(
    ("data", "step"), [({"a": "text"}, 0), ({"a": None}, 0), ({"a": 1.0}, 0.5), ({"a": 1.0}, "1")]
)
def test_what_is_no_number_appends_nothing(log: RankLog, data: dict[str, Any], step: Any) -> None:
    """The slow way takes it."""
    log.define(("a",))
    end = log.end
    with pytest.raises(Exception, match=r"required argument|must be real|an integer|may be a tensor"):
        log.metrics(data, step)
    assert log.end == end


def test_each_segment_defines_the_keysets_that_it_uses(log: RankLog) -> None:
    """Whatever comes first in it; and a number means one list of names for ever."""
    kinds = [{f"m{index}": float(index)} for index in range(5)] + [_DATA]
    expected: list[tuple[int, dict[str, float]]] = []
    for step in range(2000):
        data = kinds[step * 7 % len(kinds)]
        _log_metrics(log, data, step)
        expected.append((step, data))
    assert len(list(log.directory.glob("*.seg"))) > 5
    assert _metrics(log) == expected
    numbers = [event[2] for segment in _segments(log) for event in segment if event[0] == Kind.KEYSET]
    assert len(numbers) == len(set(numbers))


def test_threads_share_the_counter_of_steps(log: RankLog) -> None:
    """Each step is given once, also where a segment ends."""
    log.define(tuple(_DATA))
    threads, each = 4, 1000
    start = threading.Barrier(threads)

    def work() -> None:
        start.wait()
        for _ in range(each):
            _log_metrics(log, _DATA)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(step for step, _ in _metrics(log)) == list(range(threads * each))


def test_too_many_lists_of_names_are_no_keysets(log: RankLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes new names at every step must not fill memory."""
    monkeypatch.setattr(_log, "MAX_KEYSETS", 3)
    assert [log.define((f"m{index}",)) for index in range(5)] == [True, True, True, False, False]
    assert log.define(("m0",))
    assert not log.define(())
    assert not log.define(tuple(map(str, range(events.MAX_FAST_VALUES + 1))))


def test_a_full_disk_is_counted_once_an_event(log: RankLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """And half a record is cut off when there is room."""
    monkeypatch.setattr("allranks_bus.spool._RETRY_S", 0.0)
    _log_metrics(log, _DATA, 0)
    write = os.write

    def half(fd: int, data: bytes) -> int:
        return write(fd, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        for step in range(1, 6):
            log.metrics(_DATA, step)
    assert log.refused == 5
    _log_metrics(log, _DATA, 6)
    assert log.refused == 5
    assert [step for step, _ in _metrics(log)] == [0, 6]


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), TimeoutError("the user's alarm")])
@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_what_a_signal_handler_raises_goes_through(
    log: RankLog, monkeypatch: pytest.MonkeyPatch, raised: BaseException, written: float
) -> None:
    """The event counts if its record is whole."""
    _log_metrics(log, _DATA, 0)
    write = os.write

    def interrupted(fd: int, data: bytes) -> int:
        write(fd, data[: int(len(data) * written)])
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", interrupted)
        with pytest.raises(type(raised)):
            log.metrics(_DATA, 1)
    _log_metrics(log, _DATA, 2)
    assert [step for step, _ in _metrics(log)] == [0, *[1] * (written == 1.0), 2]
    assert log.end == sum(map(len, _segments(log)))
    assert log.refused == 0


def test_what_the_sdk_itself_adds_behind_the_logs_end_is_not_told_as_a_loss(log: RankLog) -> None:
    assert log.append_ours(events.pack(Kind.SYSTEM, 1, 0, {"cpu": 0.5}))
    log.seal(events.pack(Kind.CLOSE, 1, {"exit_code": 0}))
    assert not log.append_ours(events.pack(Kind.SYSTEM, 2, 0, {"cpu": 0.5}))
    assert log.refused == 0
    assert not log.append(events.pack(Kind.LOG, 3, 0, {"loss": 0.5}))
    assert log.refused == 1
