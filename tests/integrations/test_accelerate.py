"""Accelerate: every process logs what it hands to `Accelerator.log`, in one run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator, tracking
from tests.support import scenario
from tests.support.stored import Stored

from allranks.integrations.accelerate import AllranksTracker, log_from_every_process

PROGRAM = (Path(__file__).parent / "programs" / "accelerate_steps.py").read_text()


def points(stored: Stored, rank: int, key: str) -> list[tuple[int, float]]:
    """Steps and values of a metric of a rank."""
    return stored.rows(
        "SELECT p.step, p.value FROM points p JOIN series s USING (series) JOIN writers w USING (writer)"
        " WHERE w.rank = ? AND s.key = ? AND s.kind = 'metric' ORDER BY p.rowid",
        *(rank, key),
    )


def test_two_processes_are_one_run_and_each_is_kept(home: Path) -> None:
    ended = scenario.run(home, PROGRAM, how=scenario.torchrun(2))
    assert ended.exit_code == 0, ended.stderr[-4000:]
    assert not ended.left
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        assert [(writer.rank, writer.role, writer.state) for writer in stored.writers(run)] == [
            (0, "rank", "finished"),
            (1, "rank", "finished"),
        ]
        # Accelerate hands the first batch to the first process, the second to the second, and so on.
        assert points(stored, 0, "first") == [(0, 0.0), (10, 16.0)]
        assert points(stored, 1, "first") == [(0, 8.0), (10, 24.0)]
        for rank in (0, 1):
            assert points(stored, rank, "process") == [(0, rank), (10, rank)]
            assert len(points(stored, rank, "loss")) == 2
        assert stored.rows("SELECT project FROM runs") == [("own",)]
        config = stored.rows("SELECT key, value, rank FROM config JOIN writers USING (writer) ORDER BY key")
    assert [(key, json.loads(value), rank) for key, value, rank in config] == [
        ("layers", {"first": 4}, 0),
        ("lr", 0.1, 0),
    ]


def test_it_is_known_by_name_once_it_has_been_imported() -> None:
    accelerator = Accelerator(cpu=True, log_with="allranks")
    assert accelerator.log_with == ["allranks"]
    assert tracking.LOGGER_TYPE_TO_CLASS["allranks"] is AllranksTracker


def test_by_name_it_is_made_in_the_other_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("allranks.integrations.accelerate.joined", asked.append)
    other: Any = SimpleNamespace(is_main_process=False, log_with=["tensorboard", "allranks"], trackers=[])
    log_from_every_process(other).init_trackers("mnist", init_kwargs={"allranks": {"group": "g"}})
    assert [type(one) for one in other.trackers] == [AllranksTracker]
    assert asked == [{"project": "mnist", "group": "g"}]


def test_it_pickles() -> None:
    tracker = pickle.loads(pickle.dumps(AllranksTracker(project="p", mode="offline")))
    assert tracker.name == "allranks"


def test_without_the_framework_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['accelerate'] = None; import allranks.integrations.accelerate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("needs accelerate: pip install accelerate")
