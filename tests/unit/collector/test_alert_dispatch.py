"""Letters to targets: tried again a few times, in order, while the other targets get theirs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import anyio
import pytest

from allranks_collector.alerts.dispatch import Dispatch, Letter, Outcome
from allranks_collector.alerts.rules import RULES, Happening, Message
from allranks_collector.alerts.targets import Answer, Target

pytestmark = pytest.mark.anyio

_WITHIN_S = 60.0
_DOWN = Answer("no route")


@dataclass
class Post:
    """Targets that answer as the test says, and what the dispatch has told."""

    dispatch: Dispatch
    tried: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    answered: list[Letter] = field(default_factory=list[Letter])
    settled: list[Outcome] = field(default_factory=list[Outcome])

    def letter(self, title: str) -> Letter:
        letter = Letter(Happening(RULES["dead"], 1, 1), Message("r1", "dead", "ERROR", title, ""))
        self.dispatch.post(letter)
        return letter

    def tries(self, target: str) -> list[str]:
        return [title for name, title in self.tried if name == target]


@contextlib.asynccontextmanager
async def _dispatch(
    answer: Callable[[str, int], Answer], *names: str, waits_s: tuple[float, ...]
) -> AsyncGenerator[Post]:
    """`answer` gets a target's name, and how often it has been tried."""

    def send(target: Target, message: Message, _deadline_s: float, _is_given_up: Callable[[], bool]) -> Answer:
        post.tried.append((target.name, message.title))
        return answer(target.name, len(post.tries(target.name)))

    targets = [Target(name, (), lambda _: b"") for name in names]
    post = Post(
        Dispatch(
            targets,
            answered=lambda letter: post.answered.append(letter),
            settled=lambda outcome: post.settled.append(outcome),
            send=send,
            waits_s=waits_s,
        )
    )
    async with anyio.create_task_group() as task_group:
        await task_group.start(post.dispatch.run)
        yield post
        task_group.cancel_scope.cancel()


def _always(answer: Answer) -> Callable[[str, int], Answer]:
    return lambda _, __: answer


async def _until(fact: Callable[[], object]) -> None:
    with anyio.fail_after(_WITHIN_S):
        while not fact():
            await anyio.sleep(0.01)


async def test_who_does_not_take_it_at_once_gets_it_later_and_both_are_told() -> None:
    async with _dispatch(lambda _, tries: _DOWN if tries < 3 else Answer(), "a", waits_s=(0.01, 0.01)) as post:
        letter = post.letter("one")
        await _until(lambda: post.settled)
        assert post.answered == [letter]
        assert letter.answers == {"a": "no route; it is tried again"}
        assert post.settled == [Outcome(letter, "a", 3, "")]
        assert not post.dispatch.is_busy


async def test_it_is_given_up_after_the_last_try_and_that_is_told() -> None:
    async with _dispatch(_always(_DOWN), "a", waits_s=(0.01, 0.01)) as post:
        letter = post.letter("one")
        await _until(lambda: post.settled)
        assert post.settled == [Outcome(letter, "a", 3, "no route")]
        assert post.tries("a") == ["one"] * 3
        assert not post.dispatch.is_busy


async def test_who_never_will_take_it_is_not_asked_again() -> None:
    async with _dispatch(_always(Answer("no such hook", is_final=True)), "a", waits_s=(0.01,)) as post:
        letter = post.letter("one")
        post.letter("two")
        await _until(lambda: len(post.answered) == 2)
        assert letter.answers == {"a": "no such hook"}
        assert post.tries("a") == ["one", "two"]
        assert post.settled == []


async def test_others_get_theirs_and_what_waits_behind_is_answered_for_while_one_is_tried_again() -> None:
    async with _dispatch(lambda name, _: _DOWN if name == "a" else Answer(), "a", "b", waits_s=(1000.0,)) as post:
        letters = [post.letter("one"), post.letter("two")]
        await _until(lambda: len(post.answered) == 2)
        assert post.tries("b") == ["one", "two"]
        assert post.tries("a") == ["one"]
        assert letters[1].answers == {"a": "no route; it is tried again", "b": "sent"}
        assert post.dispatch.is_busy


async def test_letters_keep_their_order() -> None:
    is_up = threading.Event()
    async with _dispatch(lambda _, __: Answer() if is_up.is_set() else _DOWN, "a", waits_s=(0.01,) * 1000) as post:
        letters = [post.letter(title) for title in ("bad", "well again")]
        await _until(lambda: len(post.answered) == 2)
        is_up.set()
        await _until(lambda: len(post.settled) == 2)
        assert [outcome.letter for outcome in post.settled] == letters
        assert [outcome.problem for outcome in post.settled] == ["", ""]


async def test_after_one_is_lost_the_next_are_tried_once_each_until_one_is_taken() -> None:
    async with _dispatch(lambda _, tries: _DOWN if tries in (1, 2, 3, 5) else Answer(), "a", waits_s=(0.01,)) as post:
        for title in ("lost", "lost too", "taken", "tried again"):
            post.letter(title)
        await _until(lambda: not post.dispatch.is_busy)
        assert post.tries("a") == ["lost", "lost", "lost too", "taken", "tried again", "tried again"]


async def test_what_is_still_to_be_tried_when_the_collector_ends_is_told_to_be_lost() -> None:
    async with _dispatch(_always(_DOWN), "a", waits_s=(1000.0,)) as post:
        letter = post.letter("one")
        await _until(lambda: post.answered)
    assert post.settled == [Outcome(letter, "a", 0, "the collector ended before it could try again")]


async def test_a_crowd_is_bounded_and_what_does_not_fit_is_said() -> None:
    async with _dispatch(_always(_DOWN), "a", waits_s=(1000.0,)) as post:
        post.letter("first")
        await _until(lambda: post.answered)
        for number in range(300):
            post.letter(str(number))
            await anyio.sleep(0)
        await _until(lambda: post.dispatch.counters.dropped)
        await _until(lambda: "100 others wait for it" in {letter.answers["a"] for letter in post.answered})
