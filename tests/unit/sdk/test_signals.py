"""What a program's signal handlers raise is the program's, also in the middle of `log()`."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.support.spools import logged, spooled

import allranks
from allranks._signals import is_from_handler


class Alarm(Exception):
    """What the handlers below raise."""


def raising(number: int, frame: FrameType | None) -> None:
    raise Alarm


class Raiser:
    def method(self, number: int, frame: FrameType | None) -> None:
        helper()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise Alarm


def helper() -> None:
    raise Alarm


def with_argument(argument: int, number: int, frame: FrameType | None) -> None:
    raise Alarm


@pytest.fixture
def handle() -> Iterator[Callable[[Any], None]]:
    """Sets the handler of SIGUSR2 for one test."""
    before = signal.getsignal(signal.SIGUSR2)

    def set_handler(handler: Any) -> None:
        signal.signal(signal.SIGUSR2, handler)

    yield set_handler
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    "handler",
    [raising, Raiser().method, Raiser(), functools.partial(with_argument, 1)],
    ids=["function", "method", "object", "partial"],
)
def test_an_exception_of_a_handler_is_known(handle: Callable[[Any], None], handler: Any) -> None:
    handle(handler)
    with pytest.raises(Alarm) as caught:
        signal.raise_signal(signal.SIGUSR2)
    assert is_from_handler(caught.value)


def test_any_other_exception_is_not(handle: Callable[[Any], None]) -> None:
    handle(raising)
    with pytest.raises(Alarm) as caught:
        helper()
    assert not is_from_handler(caught.value)


def test_an_alarm_during_log_reaches_the_program_and_costs_no_event(
    sdk_home: Path, handle: Callable[[Any], None]
) -> None:
    """SIGALRM every half millisecond for a second, in a loop that does nothing but log."""
    run = allranks.init(project="p", mode="offline")
    alarms: list[int] = []
    armed = [False]

    def alarm(number: int, frame: FrameType | None) -> None:
        if armed[0]:  # once for each time, so that none comes where nobody catches it
            armed[0] = False
            alarms.append(number)
            raise Alarm

    before = signal.signal(signal.SIGALRM, alarm)
    done = 0
    end = time.monotonic() + 1.0
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while time.monotonic() < end:
            try:
                armed[0] = True
                run.log({"i": done}, done)
                armed[0] = False
                done += 1
            except Alarm:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    steps = [step for step, _ in logged(spooled(sdk_home / "spool"))]
    assert alarms
    # A call that was interrupted may have kept its event; one that returned always has.
    missing = sorted(set(range(done)) - set(steps))
    assert not missing, (missing[:3], len(missing), done, len(alarms), run.status())
    assert len(steps) <= done + len(alarms)
