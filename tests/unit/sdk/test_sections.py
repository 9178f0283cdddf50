"""Sections: what is measured, what is told, and that nothing a program does with them raises."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest
from tests.support.waiting import wait_until

from allranks import _sections
from allranks._sections import Sections
from allranks._warnings import forget
from allranks_bus import events
from allranks_bus.limits import MAX_SECTIONS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.step = -1
        self.records: list[list[Any]] = []

    def append_ours(self, payload: bytes) -> bool:
        self.records.append(events.unpack(payload))
        return True

    @property
    def windows(self) -> list[dict[str, Any]]:
        return [record[2] for record in self.records]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_sections, "monotonic", clock)
    forget()
    return clock


def _made(step: int = -1) -> tuple[Sections, Log]:
    sections, log = Sections(), Log()
    log.step = step
    sections.log = log
    return sections, log


def test_what_each_section_takes_is_stored_without_what_is_within_it(clock: Clock) -> None:
    sections, log = _made()
    log.step = 3
    with sections.section("step"):
        clock.now += 1
        with sections.section("data"):
            clock.now += 2
        with sections.section("data"):
            clock.now += 4
    log.step = 4
    sections.write()
    (window,) = log.windows
    assert window == {"from": 0, "to": 4, "seconds": 7.0, "sections": {"data": [2, 6.0, 4.0], "step": [1, 1.0, 7.0]}}
    assert log.records[0][0] == events.Kind.SECTIONS


def test_windows_follow_each_other_without_a_gap(clock: Clock) -> None:
    sections, log = _made()
    log.step = 0
    for step in range(1, 31):
        with sections.section("data"):
            clock.now += 0.1
        log.step = step
        sections.tick()
    sections.write()
    windows = log.windows
    assert [window["from"] for window in windows[1:]] == [window["to"] + 1 for window in windows[:-1]]
    assert sum(window["sections"]["data"][0] for window in windows) == 30
    assert sum(window["seconds"] for window in windows) == pytest.approx(3.0)


def test_what_came_before_the_first_step_is_no_steps(clock: Clock) -> None:
    sections, log = _made()
    with sections.section("load"):
        clock.now += 0.5
    log.step = 0
    sections.tick()
    with sections.section("data"):
        clock.now += 2
    sections.tick()
    assert [(window["to"], [*window["sections"]]) for window in log.windows] == [(-1, ["load"]), (0, ["data"])]


def test_first_steps_that_nobody_saw_coming_are_steps(clock: Clock) -> None:
    sections, log = _made()
    clock.now += 30
    for step in range(10):
        with sections.section("data"):
            clock.now += 0.5
        log.step = step
    sections.tick()
    (window,) = log.windows
    assert (window["from"], window["to"], window["seconds"]) == (0, 9, 5.0)


def test_a_section_that_goes_on_is_stored_with_its_time_when_it_ends(clock: Clock) -> None:
    sections, log = _made(7)
    sections.tick()
    clock.now += 1
    sections.tick()
    with sections.section("checkpoint"):
        for _ in range(60):
            clock.now += 1
            sections.tick()
    sections.tick()
    (window,) = log.windows
    assert window["sections"]["checkpoint"][1] == 60.0
    assert window["seconds"] >= 60.0


def test_a_beat_tells_the_phase_and_the_longest_time_in_it(clock: Clock) -> None:
    sections, log = _made()
    assert sections.status() == {"phase": "init"}
    with sections.section("checkpoint"):
        assert sections.status() == {"phase": "checkpoint", "marks": 1}
        clock.now += 60
    log.step = 1
    assert sections.status() == {"phase": "step", "marks": 2}
    with sections.section("checkpoint"):
        assert sections.status() == {"phase": "checkpoint", "marks": 3, "longest": 60.0}
        with sections.section("upload"):
            assert sections.status()["phase"] == "upload"


def test_the_longest_gap_between_steps_is_known_to_the_rank_itself(clock: Clock) -> None:
    sections, log = _made()
    for step, gap in enumerate((50.0, 1.0, 30.0, 1.0)):
        clock.now += gap
        log.step = step
        sections.tick()
    assert sections.status() == {"phase": "step", "longest": 30.0}


def test_a_rank_that_has_made_too_few_steps_does_not_know_its_pace(clock: Clock) -> None:
    sections, log = _made()
    for step in (100, 101, 109):
        clock.now += 1.0
        log.step = step
        sections.tick()
        assert sections.status() == {"phase": "step"}
    clock.now += 1.0
    log.step = 110
    sections.tick()
    assert sections.status() == {"phase": "step", "longest": 1.0}


def test_an_announcement_runs_out_and_ends_with_the_next_step(clock: Clock) -> None:
    sections, log = _made(5)
    sections.expect(60)
    clock.now += 20
    assert sections.status()["expects"] == 40.0
    with sections.section("checkpoint"):
        assert sections.status()["expects"] == 40.0
    log.step = 6
    assert "expects" not in sections.status()
    sections.expect(10)
    clock.now += 11
    assert "expects" not in sections.status()


def test_in_a_notebook_no_step_is_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sections, "is_notebook", lambda: True)
    sections, _ = _made(5)
    assert sections.status()["expects"] == _sections.IDLE_S
    sections.expect(60)
    clock.now += 20
    assert sections.status()["expects"] == 40.0


def test_what_threads_do_beside_the_training_is_none_of_its_time(clock: Clock) -> None:
    sections, log = _made(1)

    def load() -> None:
        with sections.section("prefetch"):
            clock.now += 5

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert sections.status() == {"phase": "step"}
    with sections.section("data"):
        clock.now += 1
    sections.write()
    assert [[*window["sections"]] for window in log.windows] == [["data"]]


def test_where_another_thread_trains_its_sections_are_stored(clock: Clock) -> None:
    sections, log = _made(1)

    def train() -> None:
        with sections.section("data"):
            clock.now += 5

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    sections.write()
    assert log.windows[0]["sections"]["data"][1] == 5.0


def test_coroutines_may_take_turns_in_their_sections(clock: Clock) -> None:
    sections, log = _made(1)
    first, second = sections.section("first"), sections.section("second")
    first.__enter__()
    clock.now += 1
    second.__enter__()
    clock.now += 1
    first.__exit__(None, None, None)
    clock.now += 1
    second.__exit__(None, None, None)
    second.__exit__(None, None, None)
    sections.write()
    assert {name: told[0] for name, told in log.windows[0]["sections"].items()} == {"first": 1, "second": 1}
    assert sections.status()["phase"] == "step"


def test_an_exception_goes_through_and_the_time_is_kept(clock: Clock) -> None:
    sections, log = _made(1)
    with pytest.raises(KeyError), sections.section("data"):
        clock.now += 3
        raise KeyError
    sections.write()
    assert log.windows[0]["sections"]["data"][1] == 3.0


class _Nameless:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("name", [None, ["a", "list"], 7, "", _Nameless(), "\udc80"])
def test_no_name_raises(clock: Clock, name: Any) -> None:
    sections, log = _made(1)
    with sections.section(name):
        clock.now += 1
    sections.write()
    assert sum(told[1] for told in log.windows[0]["sections"].values()) == 1.0


def test_beyond_so_many_names_the_rest_are_one(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    sections, log = _made(1)
    for number in range(2 * MAX_SECTIONS):
        with sections.section(f"part-{number}"):
            clock.now += 1
    sections.write()
    assert len(log.windows[0]["sections"]) == MAX_SECTIONS
    assert log.windows[0]["sections"]["other"][0] == MAX_SECTIONS + 1
    assert capsys.readouterr().err.count("sections already") == 1


@pytest.mark.parametrize("seconds", [-1, float("nan"), "soon", None])
def test_nonsense_is_not_announced_and_said(clock: Clock, seconds: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sections, _ = _made(1)
    sections.expect(seconds)
    assert "expects" not in sections.status()
    assert "nothing is announced" in capsys.readouterr().err


def test_a_forked_child_leaves_the_sections_of_its_parent_quietly(clock: Clock) -> None:
    sections, log = _made(1)
    with sections.section("data"):
        sections.abandon()
        clock.now += 1
    sections.write()
    assert log.windows == []


class _Trainer:
    """A thread that trains, and is told which function to be in."""

    def __init__(self) -> None:
        self._turn, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._next: str | None = None
        self.sections: Sections | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()
        assert self._there.acquire(timeout=60)

    def go(self, where: str | None) -> None:
        """Returns once it is in that function, or None: at its end."""
        self._next = where
        self._turn.release()
        assert self._there.acquire(timeout=60)

    def _train(self) -> None:
        self.sections, _ = _made(3)
        where: str | None = "wait"
        while where:
            where = getattr(self, where)()
        self._there.release()

    def wait(self) -> str | None:
        self._there.release()
        assert self._turn.acquire(timeout=60)
        return self._next

    def work(self) -> str | None:
        return self.wait()


def test_a_beat_tells_for_how_long_the_training_has_been_in_the_same_functions(clock: Clock) -> None:
    trainer = _Trainer()
    assert trainer.sections is not None
    sections = trainer.sections
    sections.tick()

    def still_after(seconds: float) -> float | None:
        clock.now += seconds
        sections.tick()
        still: float | None = sections.status().get("still")
        return still

    assert still_after(0.5) is None
    assert still_after(1.0) == 1.5
    trainer.go("wait")  # another turn of the same loop
    assert still_after(5.0) == 6.5
    trainer.go("work")
    assert still_after(1.0) == 0.0
    assert still_after(2.0) == 2.0
    assert sections.log is not None
    sections.log.step = 4
    assert still_after(1.0) is None
    trainer.go(None)
    assert still_after(9.0) == 9.0  # a thread that has ended gets on no more


def test_who_moves_bytes_in_one_call_gets_on_and_who_polls_does_not(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = [7_000_000]

    def bytes_moved(_ident: int, _task: int) -> int:
        return moved[0]

    monkeypatch.setattr(_sections, "bytes_moved", bytes_moved)
    trainer = _Trainer()
    sections = trainer.sections
    assert sections is not None
    sections.tick()

    def still_after(seconds: float, byte_rate: float) -> float:
        clock.now += seconds
        moved[0] += int(seconds * byte_rate)
        sections.tick()
        still: float = sections.status()["still"]
        return still

    assert still_after(2.0, 1e9) == 2.0  # what came with the step is not known apart
    assert still_after(0.3, 1e9) == 2.3  # asked once a second
    assert still_after(0.7, 5e6) == 0.0
    assert still_after(1.0, 5e6) == 0.0
    assert still_after(1.0, 1e5) == 1.0
    assert still_after(9.0, 1e5) == 10.0
    trainer.go(None)


def test_a_kernel_that_does_not_count_bytes_tells_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def bytes_moved(_ident: int, _task: int) -> None:
        return None

    monkeypatch.setattr(_sections, "bytes_moved", bytes_moved)
    trainer = _Trainer()
    sections = trainer.sections
    assert sections is not None
    sections.tick()
    for _ in range(3):
        clock.now += 2
        sections.tick()
    assert sections.status()["still"] == 6.0
    trainer.go(None)


def _moved_here() -> int | None:
    return _sections.bytes_moved(threading.get_ident(), threading.get_native_id())


def test_the_kernel_counts_what_a_thread_reads() -> None:
    before = _moved_here()
    with open("/dev/zero", "rb") as zero:
        zero.read(3_000_000)
    after = _moved_here()
    assert before is not None
    assert after is not None
    assert 3_000_000 <= after - before < 4_000_000
    assert _sections.bytes_moved(0, 2**30) is None


_COPY = "head -c 3000000 /dev/zero >/dev/null; echo done; read line"


@pytest.mark.parametrize("command", [_COPY, f"sh -c '{_COPY}'; true"], ids=["its child", "a shell's child"])
def test_a_program_that_a_thread_waits_for_moves_bytes_for_it(command: str) -> None:
    copied, go = threading.Event(), threading.Event()
    started: list[tuple[int, int, subprocess.Popen[bytes]]] = []

    def train() -> None:
        with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            started.append((threading.get_ident(), threading.get_native_id(), program))
            assert program.stdout is not None
            assert program.stdout.readline() == b"done\n"
            copied.set()
            go.wait(60)  # not for the program: what that does is nothing to this thread
            program.wait(60)

    trainer = threading.Thread(target=train, daemon=True)
    trainer.start()
    assert copied.wait(60)
    ((ident, task, program),) = started
    beside = _sections.bytes_moved(ident, task)
    assert beside is not None
    assert beside < 3_000_000
    go.set()
    wait_until(lambda: (_sections.bytes_moved(ident, task) or 0) >= beside + 3_000_000, "it is seen", timeout_s=60.0)
    assert program.stdin is not None
    program.stdin.close()
    trainer.join(60)
