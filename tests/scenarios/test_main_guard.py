"""Scripts without a main guard: only Python itself runs the main module again, for workers of the script's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support import scenario

_STEPS = 16


@pytest.mark.parametrize(
    ("how", "method", "workers"),
    [
        (scenario.MODULE, "spawn", 0),
        (scenario.SCRIPT, "forkserver", 0),
        (scenario.SCRIPT, "spawn", 2),
        (scenario.MODULE, "forkserver", 2),
    ],
)
def test_there_is_one_run_and_no_process_of_multiprocessing_but_the_scripts_own(
    home: Path, how: Sequence[str], method: str, workers: int
) -> None:
    ended = scenario.run(home, "unguarded.py", method, *(["workers"] if workers else []), how=how)
    ended.must_be_well()
    lines = Counter(ended.stdout.splitlines())
    assert lines == {
        "main runs as __main__": 1,
        **({"main runs as __mp_main__": workers} if workers else {}),
        f"processes of multiprocessing: {workers}": 1,
    }
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert stored.rows("SELECT project, name FROM runs") == [("aaa", "test")]
        writers = [writer for writer in stored.writers(run) if writer.role != "console"]
        assert [(writer.role, writer.rank, writer.state) for writer in writers] == [("rank", 0, "finished")]
        (counter,) = stored.counters(run)
        assert (counter.is_unbroken, len(counter.steps)) == (True, _STEPS)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_logs_while_it_runs_the_main_module_again_ends_as_one(home: Path, method: str) -> None:
    scenario.run(home, "logs_at_the_top.py", method).must_be_well()
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        rank, child = (writer for writer in stored.writers(run) if writer.role != "console")
        assert (rank.role, rank.state, child.role, child.state) == ("rank", "finished", "child", "finished")
        assert stored.values("began") == {pid: [pid] for pid in (rank.pid, child.pid)}
        assert stored.values("worked") == {child.pid: [child.pid]}
