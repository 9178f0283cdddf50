"""Ranks that stand still are asked where: each is told rightly, whatever holds it, and none is hurt by the asking."""

from __future__ import annotations

import contextlib
import signal
import urllib.request
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from tests.faults.programs.standing import STANDING
from tests.support.collector import CollectorProcess
from tests.support.progress import PHASE
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

from allranks_collector import cli

_START_S = 90.0
_ANSWER_S = 60.0


@contextlib.contextmanager
def _standing(collector: CollectorProcess, *places: str) -> Generator[list[Rank]]:
    """Ranks that stand in these places, known to the collector; all of them still there at the end."""
    with Job(collector.home, collector.url, program="standing").ranks(len(places), *places) as ranks:
        for rank in ranks:

            def stands(rank: Rank = rank) -> bool:
                assert rank.process.poll() is None, rank.stderr
                return bool(rank.progress.cells[PHASE] == STANDING)

            wait_until(stands, f"rank {rank.rank} stands", timeout_s=_START_S)
        wait_until(lambda: len(collector.ranks(RUN)) == len(places), "all ranks are known", timeout_s=_START_S)
        yield ranks
        assert [rank.process.poll() for rank in ranks] == [None] * len(ranks)


def _ask(collector: CollectorProcess) -> Any:
    request = urllib.request.Request(f"{collector.http}/api/runs/{RUN}/stacks", method="POST")
    with urllib.request.urlopen(request, timeout=_ANSWER_S):
        return collector.get(f"/api/runs/{RUN}/stacks")


def _functions(rank: dict[str, Any]) -> Sequence[str]:
    return [frame[2] for frame in rank["threads"][0]["frames"]]


def test_ranks_are_grouped_by_where_they_stand_though_c_code_holds_an_interpreter(
    collector: CollectorProcess,
) -> None:
    with _standing(collector, "queue", "queue", "nap", "gil"):
        for _ in range(2):  # asked again, all of them still answer
            found = _ask(collector)
            assert [rank["how"] for rank in found["ranks"]] == ["asked", "asked", "asked", "signal"]
            largest, *odd = found["groups"]
            assert (largest["ranks"], largest["wait"], largest["function"]) == ([0, 1], "Queue.get", "wait_for_work")
            told = {tuple(group["ranks"]): group["text"] for group in odd}
            assert set(told) == {(2,), (3,)}
            assert told[2,].startswith("rank 2 in nap standing.py:")
            assert told[3,].startswith("rank 3 in match standing.py:")
            for rank in found["ranks"]:
                assert [thread["main"] for thread in rank["threads"]] == [True]  # and none of ours
            assert "hold_gil" in _functions(found["ranks"][3])


def test_who_cannot_answer_is_said_to_and_keeps_its_own_handler(collector: CollectorProcess) -> None:
    with _standing(collector, "nap", "own-handler-first", "own-handler-later") as ranks:
        ranks[0].process.send_signal(signal.SIGSTOP)
        found = _ask(collector)
        assert {rank["rank"]: (rank["how"], rank["reason"]) for rank in found["ranks"]} == {
            0: ("none", "stopped by a signal"),
            1: ("none", "no answer, and no handler for the signal that asks"),
            2: ("none", "no answer, and no handler for the signal that asks"),
        }
        ranks[0].process.send_signal(signal.SIGCONT)
        wait_until(
            lambda: _ask(collector)["ranks"][0]["how"] == "asked", "rank 0 goes on and answers", timeout_s=_ANSWER_S
        )


def test_ranks_that_all_stop_stepping_are_asked_by_themselves(
    collector_of: Callable[[dict[str, str]], CollectorProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    with collector_of({"ALLRANKS_STALL_MIN_S": "1"}) as collector, _standing(collector, "nap", "queue"):

        def asked() -> Any:
            found = collector.get(f"/api/runs/{RUN}/stacks")
            return found if len(found["ranks"]) == 2 else None

        found = wait_until(asked, "the ranks have been asked", timeout_s=_ANSWER_S)
        assert [group["answered"] for group in found["groups"]] == [True, True]
        capsys.readouterr()
        assert cli.main(["stacks", RUN, "--last", "--full", "--http", collector.http]) == 0
        printed = capsys.readouterr().out
        for group in found["groups"]:
            assert group["text"] in printed
        assert "rank 1, main thread:" in printed
        assert "in nap\n" in printed
