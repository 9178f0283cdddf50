"""Letters on their way to the targets: one task for each target, so that one that does not answer delays no other.

    letter ─► queue of each target ─► deliver (a process) ─► answers ─► an event of the run

A target that does not take a letter is asked again, a few times and less and less often. Its letters keep their
order: nobody is to read that a rank is well again before reading that it was not. Those that wait behind one count as
answered meanwhile, so that what happened is kept at once, and what becomes of them later is told by itself.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from allranks_collector.alerts.rules import Happening, Message
from allranks_collector.alerts.targets import DEADLINE_S, Answer, Target, deliver

logger = logging.getLogger(__name__)

# Between one try and the next.
WAITS_S = (2.0, 10.0, 60.0)
_MAX_QUEUED = 100
_COMPLAIN_S = 60.0

Deliver = Callable[[Target, Message, float, Callable[[], bool]], Answer]


@dataclass
class AlertCounters:
    """What has been sent since the start, per target and message; each try that failed counts."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass
class Letter:
    """A message to the targets.

    Attributes:
        told: what its readers know by it, as the event keeps it.
        answers: what each target has said at first; whole once it is told to be answered.
    """

    happening: Happening
    message: Message
    told: dict[str, list[Any]] = field(default_factory=dict[str, "list[Any]"])
    answers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Outcome:
    """What became of a letter that a target did not take at first; `problem` is empty where it has it now."""

    letter: Letter
    target: str
    tries: int
    problem: str


class Dispatch:
    """Sends letters; everything but the sending itself happens in the event loop's thread.

    Args:
        answered: told of each letter once every target has said something, or waits behind another letter.
        settled: told later what became of it where that was not all.
        send: called in a worker thread; another one in tests.
        waits_s: between one try and the next; after the last one it is given up.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        answered: Callable[[Letter], None],
        settled: Callable[[Outcome], None],
        send: Deliver = deliver,
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        self.counters = AlertCounters()
        self.targets = tuple(targets)
        self._answered = answered
        self._settled = settled
        self._send = send
        self._waits_s = tuple(waits_s)
        self._queues: list[MemoryObjectSendStream[Letter]] = []
        self._under_way = 0
        self._problems: dict[str, str] = {}
        self._complained_at = -math.inf
        self._is_testing = False

    @property
    def is_busy(self) -> bool:
        """True while a letter is on its way to anybody."""
        return bool(self._under_way)

    def status(self) -> dict[str, Any]:
        """For `/api/collector`: what was sent, and by target why the newest was not."""
        counters = self.counters
        return {
            "targets": [
                {"name": target.name, "problem": self._problems.get(target.name, "")} for target in self.targets
            ],
            "sent": counters.sent,
            "failed": counters.failed,
            "dropped": counters.dropped,
        }

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sends what is posted until it is cancelled."""
        async with anyio.create_task_group() as task_group:
            for target in self.targets:
                sender, receiver = anyio.create_memory_object_stream[Letter](_MAX_QUEUED)
                self._queues.append(sender)
                task_group.start_soon(_Round(self, target, receiver).run)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                for queue in self._queues:
                    queue.close()

    def post(self, letter: Letter) -> None:
        """Has a letter sent to every target; called while `run` runs."""
        for target, queue in zip(self.targets, self._queues, strict=True):
            self._under_way += 1
            try:
                queue.send_nowait(letter)
            except anyio.WouldBlock:
                self.counters.dropped += 1
                self._under_way -= 1
                self.answer(letter, target, f"{_MAX_QUEUED} others wait for it")
        if not self.targets:
            self._answered(letter)

    async def test(self, message: Message) -> list[dict[str, Any]] | None:
        """Sends one message to all targets once, whatever else is under way; how each answered.

        None where such a test is under way already: whoever asks often must not have a crowd of processes started.
        """
        if self._is_testing:
            return None
        self._is_testing = True
        answers: dict[str, str] = {}

        async def ask(target: Target) -> None:
            answers[target.name] = (await self.deliver(target, message)).problem

        try:
            async with anyio.create_task_group() as task_group:
                for target in self.targets:
                    task_group.start_soon(ask, target)
        finally:
            self._is_testing = False
        return [{"name": t.name, "sent": not answers[t.name], "problem": answers[t.name]} for t in self.targets]

    async def deliver(self, target: Target, message: Message) -> Answer:
        """Tries once."""
        is_given_up = False
        try:
            answer = await anyio.to_thread.run_sync(
                partial(self._send, target, message, DEADLINE_S, lambda: is_given_up),
                limiter=anyio.CapacityLimiter(1),
                abandon_on_cancel=True,
            )
        except Exception as error:  # a mistake of ours must not end the collector
            logger.exception("the alert target %s", target.name)
            answer = Answer(f"it could not be asked ({type(error).__name__})", is_final=True)
        finally:
            is_given_up = True
        self._problems[target.name] = answer.problem
        if answer.problem:
            self.counters.failed += 1
            self._complain(target, answer.problem)
        else:
            self.counters.sent += 1
        return answer

    def answer(self, letter: Letter, target: Target, problem: str) -> None:
        """Takes in what a target has said first of a letter."""
        letter.answers[target.name] = problem or "sent"
        if len(letter.answers) == len(self.targets):
            self._answered(letter)

    def settle(self, outcome: Outcome) -> None:
        """Takes in what became of a letter in the end."""
        if outcome.problem:
            logger.warning("alerts: %s never took: %s", outcome.target, outcome.letter.message.title)
        self._settled(outcome)

    def done(self) -> None:
        """Takes in that a letter needs no more of one target."""
        self._under_way -= 1

    def wait_s(self, tries: int) -> float | None:
        """How long to wait after so many tries; None where it is given up."""
        return self._waits_s[tries - 1] if tries <= len(self._waits_s) else None

    def _complain(self, target: Target, problem: str) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            logger.warning("alerts: %s: %s (%d failed so far)", target.name, problem, self.counters.failed)


class _Round:
    """The letters of one target, in order."""

    def __init__(self, dispatch: Dispatch, target: Target, letters: MemoryObjectReceiveStream[Letter]) -> None:
        self._dispatch = dispatch
        self._target = target
        self._letters = letters
        # With whether something has been answered of it already.
        self._waiting: deque[tuple[Letter, bool]] = deque()
        # One that a letter was given up for gets the next ones once each, until it takes one.
        self._is_lost = False

    async def run(self) -> None:
        try:
            with self._letters as letters:
                while True:
                    if not self._waiting:
                        self._waiting.append((await letters.receive(), False))
                    await self._carry()
        finally:
            for letter, is_answered in self._waiting:
                if is_answered:
                    problem = "the collector ended before it could try again"
                    self._dispatch.settle(Outcome(letter, self._target.name, 0, problem))

    async def _carry(self) -> None:
        """Delivers the first letter, or gives it up."""
        tries = 0
        while True:
            letter, is_answered = self._waiting[0]
            answer = await self._dispatch.deliver(self._target, letter.message)
            tries += 1
            wait_s = None if self._is_lost or answer.is_final else self._dispatch.wait_s(tries)
            if not answer.problem or wait_s is None:
                break
            self._put_off(answer.problem)
            with anyio.move_on_after(wait_s):
                while len(self._waiting) < _MAX_QUEUED:
                    self._waiting.append((await self._letters.receive(), False))
                    self._put_off(answer.problem)
                await anyio.sleep_forever()
        self._is_lost = bool(answer.problem) and not answer.is_final
        self._waiting.popleft()
        if is_answered:
            self._dispatch.settle(Outcome(letter, self._target.name, tries, answer.problem))
        else:
            self._dispatch.answer(letter, self._target, answer.problem)
        self._dispatch.done()

    def _put_off(self, problem: str) -> None:
        """Answers for all that wait, but for those that are in the queue still, that they are tried again."""
        for number, (letter, is_answered) in enumerate(self._waiting):
            if not is_answered:
                self._waiting[number] = letter, True
                self._dispatch.answer(letter, self._target, f"{problem}; it is tried again")
