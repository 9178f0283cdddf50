"""CUDA tensors in `log()`: nothing waits for the device; what has come is kept with the step and time of its call."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.cuda import CudaTensor, Device, fake_torch
from tests.support.spools import logged, of_kind, spooled

import allranks
from allranks import _pending
from allranks._device import Arrivals, OnDevice, scalar
from allranks._pending import MAX_PENDING, Pending
from allranks._run import Run
from allranks_bus import events
from allranks_bus.events import Kind


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that the test runs; torch's double is in the place of torch."""
    found = Device()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(found))
    return found


@pytest.fixture
def run(sdk_home: Path, device: Device) -> Run:
    return allranks.init(project="p", mode="offline")


class FakeLog:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, dict[str, Any]]] = []
        self.appended: list[list[Any]] = []
        self.fails = False

    def append(self, payload: bytes) -> bool:
        self.appended.append(events.unpack(payload))
        return True

    def append_fields(self, time_ns: int, step: int, fields: Any) -> None:
        if self.fails:
            self.fails = False
            raise KeyboardInterrupt
        self.kept.append((step, dict(fields)))


def on_device(number: float) -> dict[str, OnDevice]:
    return {"loss": scalar(CudaTensor(number))}


def test_a_value_on_a_device_is_kept_once_it_has_come(sdk_home: Path, run: Run, device: Device) -> None:
    run.log({"loss": CudaTensor(1.5)})
    assert logged(spooled(sdk_home / "spool")) == []
    device.run()
    run.log({"loss": CudaTensor(2.5)})
    assert logged(spooled(sdk_home / "spool")) == [(0, {"loss": 1.5})]
    device.run()
    run.finish()
    assert logged(spooled(sdk_home / "spool")) == [(0, {"loss": 1.5}), (1, {"loss": 2.5})]


def test_it_has_the_step_and_the_time_of_its_call(sdk_home: Path, run: Run, device: Device) -> None:
    before = time.time_ns()
    run.log({"loss": CudaTensor(1.5)}, step=7)
    after = time.time_ns()
    run.log({"i": 1})
    device.run()
    run.finish()
    (event,) = of_kind(spooled(sdk_home / "spool"), Kind.LOG)
    assert event[2:] == [7, {"loss": 1.5}]
    assert before <= event[1] <= after
    assert [step for step, _ in logged(spooled(sdk_home / "spool"))] == [8, 7]


def test_the_plain_values_beside_it_are_kept_at_once(sdk_home: Path, run: Run, device: Device) -> None:
    run.log({"loss": CudaTensor(1.5), "lr": 0.1, "note": "warm", "deep": {"acc": CudaTensor(0.5)}})
    found = [fields for _, fields in logged(spooled(sdk_home / "spool"))]
    assert found == [{"lr": 0.1}, {"note": "warm"}]
    device.run()
    run.finish()
    assert logged(spooled(sdk_home / "spool"))[-1] == (0, {"loss": 1.5, "deep/acc": 0.5})


def test_what_is_overwritten_afterwards_is_kept_as_it_was(sdk_home: Path, run: Run, device: Device) -> None:
    loss = CudaTensor(1.5)
    run.log({"loss": loss})
    loss.number = 99.0
    device.run()
    run.finish()
    assert logged(spooled(sdk_home / "spool")) == [(0, {"loss": 1.5})]


def test_within_a_captured_graph_it_is_refused(
    sdk_home: Path, run: Run, device: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    device.is_capturing = True
    run.log({"loss": CudaTensor(1.5), "lr": 0.1})
    assert logged(spooled(sdk_home / "spool")) == [(0, {"lr": 0.1})]
    assert capfd.readouterr().err.count("CUDA graph") == 1


def test_a_device_that_never_answers_does_not_hold_up_the_end(
    sdk_home: Path, run: Run, device: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    run.log({"loss": CudaTensor(1.5)})
    run.log({"lr": 0.1})
    began = time.monotonic()
    run.finish(timeout=0.1)
    assert time.monotonic() - began < 30
    found = spooled(sdk_home / "spool")
    assert logged(found) == [(1, {"lr": 0.1})]
    ((_, _, dropped),) = of_kind(found, Kind.DROPPED)
    assert dropped["records"] == 1
    assert "1 events are lost" in capfd.readouterr().err


def test_the_publishers_thread_stores_what_has_come(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pending, "may_ask_from_this_thread", bool)
    log = FakeLog()
    pending = Pending(log)
    pending.tick()
    pending.copy(3, on_device(1.0))
    pending.tick()
    assert log.kept == []
    device.run()
    pending.tick()
    assert log.kept == [(3, {"loss": 1.0})]
    assert len(pending) == 0


def test_the_order_is_kept_whatever_comes_first(device: Device) -> None:
    log = FakeLog()
    pending = Pending(log)
    for step in range(5):
        pending.copy(step, on_device(step))
    device.run()
    assert pending.finish(time.monotonic() + 10)
    assert log.kept == [(step, {"loss": float(step)}) for step in range(5)]


def test_a_thread_that_must_not_ask_leaves_it_to_the_one_that_logs(device: Device) -> None:
    log = FakeLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    device.run()
    asked = device.queries
    pending.tick()
    pending.tick()
    assert device.queries == asked
    assert log.kept == []
    pending.copy(1, on_device(1.0))
    assert log.kept == [(0, {"loss": 0.0})]


def test_there_is_a_bound_and_what_is_beyond_it_is_counted(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    log = FakeLog()
    pending = Pending(log)
    for step in range(MAX_PENDING + 3):
        pending.copy(step, on_device(step))
    assert len(pending) == MAX_PENDING
    device.run()
    assert not pending.finish(time.monotonic() + 10)
    assert len(log.kept) == MAX_PENDING
    assert [event[2]["records"] for event in log.appended] == [3]
    assert "more are not kept" in capfd.readouterr().err


def test_a_broken_device_costs_what_was_on_it_and_no_more(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    log = FakeLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    pending.copy(1, on_device(1.0))
    device.is_broken = True
    assert not pending.finish(time.monotonic() + 10)
    assert len(pending) == 0
    assert [event[2]["records"] for event in log.appended] == [2]
    assert "device-side assert" in capfd.readouterr().err


def test_an_interrupt_while_it_is_stored_does_not_lose_it(device: Device) -> None:
    log = FakeLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    device.run()
    log.fails = True
    with pytest.raises(KeyboardInterrupt):
        pending.finish(time.monotonic() + 10)
    assert pending.finish(time.monotonic() + 10)
    assert log.kept == [(0, {"loss": 0.0})]


def test_the_end_waits_for_a_thread_that_is_storing(device: Device) -> None:
    class SlowLog(FakeLog):
        def append_fields(self, time_ns: int, step: int, fields: Any) -> None:
            begun.set()
            assert go_on.wait(60)
            super().append_fields(time_ns, step, fields)

    begun, go_on, log = threading.Event(), threading.Event(), SlowLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    device.run()
    storing = threading.Thread(target=pending.put, args=(1, Arrivals(sys.modules["torch"])))
    storing.start()
    assert begun.wait(60)
    ending = threading.Timer(0.05, go_on.set)
    ending.start()
    assert pending.finish(time.monotonic() + 10)
    assert log.kept[0] == (0, {"loss": 0.0})
    storing.join(10)
    ending.join(10)


def test_an_end_without_time_stores_what_has_come(device: Device) -> None:
    log = FakeLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    device.run()
    assert pending.finish(time.monotonic())
    assert log.kept == [(0, {"loss": 0.0})]


def test_a_forked_child_does_not_touch_the_device(device: Device) -> None:
    log = FakeLog()
    pending = Pending(log)
    pending.copy(0, on_device(0.0))
    asked = device.queries
    pending.abandon()
    assert pending.finish(time.monotonic() + 10)
    assert (log.kept, log.appended, device.queries) == ([], [], asked)


def test_one_event_serves_all_copies_of_a_stream(device: Device) -> None:
    arrivals = Arrivals(sys.modules["torch"])
    for name in "abc":
        arrivals.add(name, scalar(CudaTensor(ord(name))))
    assert not arrivals.have_come()
    device.queries = 0
    device.run()
    assert arrivals.have_come()
    assert device.queries == 1
    assert arrivals.read() == ({name: float(ord(name)) for name in "abc"}, {})
