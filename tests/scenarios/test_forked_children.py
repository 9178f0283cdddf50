"""Eight forked children that print, use `logging`, and log: the TPU and notebook pattern."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import scenario

_CHILDREN, _STEPS, _LINES = 8, 300, 5
# From Python 3.12 on a fork warns of threads, as the publisher is one.
_QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


@pytest.mark.parametrize("method", ["os", "multiprocessing"])
def test_nothing_raises_or_hangs_and_all_is_stored_under_its_process_and_rank(home: Path, method: str) -> None:
    ended = scenario.run(home, "forked_children.py", method, "busy", env=_QUIET)
    ended.must_be_well()
    assert sorted(ended.stdout.splitlines()) == _lines("prints line")
    assert sorted(line.removeprefix("INFO:train:") for line in ended.stderr.splitlines()) == _lines("logs line")
    with scenario.stored(home, is_complete=lambda: _have_ended(home)) as stored:
        (run,) = stored.runs()
        parent, *children = stored.writers(run)
        assert (parent.role, parent.state) == ("rank", "finished")
        assert [(child.role, child.rank, child.parent) for child in children] == [("child", 0, parent.id)] * _CHILDREN
        # Those that ended by os._exit said nothing of their end.
        assert sorted(str(child.state) for child in children) == ["dead"] * 3 + ["finished"] * 5
        assert stored.values("i") == {
            parent.pid: [0.0, 1.0],
            **{child.pid: [float(step) for step in range(_STEPS)] for child in children},
        }
        assert {rank: sorted(lines) for rank, lines in stored.lines(run).items()} == {0: _lines("prints line")}
        logged = {rank: sorted(lines) for rank, lines in stored.lines(run, "stderr").items()}
        assert logged == {0: [f"INFO:train:{line}" for line in _lines("logs line")]}


def _have_ended(home: Path) -> bool:
    """Whether the collector knows how all children have ended: it sees the end of those that said nothing of it."""
    (run,) = scenario.ask(home, "/api/runs")["runs"]
    (rank,) = scenario.ask(home, f"/api/runs/{run['id']}/ranks")["ranks"]
    return [child["state"] in ("dead", "finished") for child in rank["children"]] == [True] * _CHILDREN


def _lines(words: str) -> list[str]:
    return sorted(f"child {child} {words} {line}" for child in range(_CHILDREN) for line in range(_LINES))
