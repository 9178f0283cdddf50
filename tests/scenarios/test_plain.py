"""The plainest program: one process, no `finish()`, a home that nobody has used yet."""

from __future__ import annotations

from pathlib import Path

from tests.support import scenario


def test_a_program_that_never_says_that_it_ends_is_stored_whole(home: Path) -> None:
    ended = scenario.run(home, "plain.py")
    ended.must_be_well()
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        (counter,) = stored.counters(run)
        assert counter.is_unbroken
        assert len(counter.steps) == 1000
        assert stored.states(run, 0)[-1] == "finished"


def test_without_allranks_the_same_program_ends_too(home: Path) -> None:
    ended = scenario.run(home, "plain.py", is_without=True)
    ended.must_be_well()
    assert not home.exists()


SHORT = """
import sys
import allranks, allranks._publisher
allranks._publisher.QUIET_S = 60.0  # however slow the machine is
allranks.init(project="p")
allranks.log({"i": 0})
print(*sorted({"zmq", "psutil", "asyncio", "ctypes", "socket"} & set(sys.modules)))
"""


def test_a_program_that_ends_soon_loads_nothing_that_ships_and_loses_nothing(home: Path) -> None:
    ended = scenario.run(home, SHORT)
    ended.must_be_well()
    assert ended.stdout == "\n"
    with scenario.stored(home) as stored:
        assert [list(values) for values in stored.values("i").values()] == [[0.0]]
