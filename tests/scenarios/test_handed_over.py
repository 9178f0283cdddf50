"""A run, its configuration, and a namespace that holds both, handed to the processes that train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support import scenario

_RANKS, _STEPS = 2, 300


@pytest.mark.parametrize(
    ("method", "role", "world_size"), [("torch", "rank", _RANKS), ("spawn", "child", 1), ("forkserver", "child", 1)]
)
def test_the_children_know_the_configuration_and_log_into_the_same_run(
    home: Path, method: str, role: str, world_size: int
) -> None:
    ended = scenario.run(home, "handed_over.py", method)
    ended.must_be_well()
    pids = {int(pid): int(rank) for rank, pid in re.findall(r"rank (\d) is process (\d+)", ended.stdout)}
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        # Every process under a writer of its own; those that torch.distributed knows, at their rank.
        assert stored.values("i") == {pid: [float(step) for step in range(_STEPS)] for pid in pids}
        children = [writer for writer in stored.writers(run) if writer.pid in pids]
        assert {(writer.pid, writer.rank, writer.world_size, writer.role, writer.attempt) for writer in children} == {
            (pid, rank if role == "rank" else 0, world_size, role, 1) for pid, rank in pids.items()
        }
        (parent,) = (writer for writer in stored.writers(run) if writer.pid not in pids)
        assert {writer.parent for writer in children} == {parent.id}
        assert {writer.state for writer in stored.writers(run)} == {"finished"}
