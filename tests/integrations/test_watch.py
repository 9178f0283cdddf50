"""`run.watch` under DistributedDataParallel: the gradients of each rank, while DDP goes on averaging them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario

PROGRAM = (Path(__file__).parent / "programs" / "watched_ddp.py").read_text()
COUNTS = {"0.weight": 32, "0.bias": 8, "2.weight": 8, "2.bias": 1}


def test_of_accumulated_gradients_each_rank_keeps_its_own(home: Path) -> None:
    with scenario.started(home, PROGRAM, how=scenario.torchrun(2)) as program:
        ended = program.wait()
        assert ended.exit_code == 0, ended.stderr[-4000:]
        told = [json.loads((program.directory / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert not ended.left
    with scenario.stored(home) as stored:
        rows = stored.rows(
            "SELECT w.rank, o.step, s.key, o.body FROM objects o JOIN series s USING (series) JOIN writers w"
            " USING (writer) ORDER BY o.rowid"
        )
        assert len(stored.runs()) == 1
    found: dict[tuple[int, int, str], dict[str, Any]] = {}
    for rank, step, key, body in rows:
        assert (rank, step, key) not in found
        found[rank, step, key] = json.loads(body)
    expected = {
        (rank, 100 * step, f"{kind}/{name}"): figures
        for rank in (0, 1)
        for step, kinds in enumerate(told[rank])
        for kind, names in kinds.items()
        for name, figures in names.items()
    }
    assert found.keys() == expected.keys()
    for place, histogram in found.items():
        assert_is_sane(histogram, COUNTS[place[2].partition("/")[2]])
        for name, value in expected[place].items():
            assert histogram[name] == pytest.approx(value, rel=1e-5, abs=1e-9), (place, name)
    assert told[0][0]["gradients"] != told[1][0]["gradients"]
    assert told[0][1]["parameters"] == told[1][1]["parameters"]


def assert_is_sane(histogram: dict[str, Any], count: int) -> None:
    assert histogram["_type"] == "histogram"
    assert len(histogram["bins"]) == 65
    assert len(histogram["counts"]) == 64
    assert histogram["bins"] == sorted(histogram["bins"])
    assert sum(histogram["counts"]) == histogram["count"] == count
    assert all(type(number) is int and number >= 0 for number in histogram["counts"])
    assert histogram["bins"][0] <= histogram["min"] <= histogram["mean"] <= histogram["max"] <= histogram["bins"][-1]
    assert "nonfinite" not in histogram
    assert "sample_of" not in histogram
