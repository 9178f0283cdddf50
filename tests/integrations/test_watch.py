"""`run.watch` on several ranks: the gradients of each, while DistributedDataParallel goes on averaging them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario

PROGRAM = (Path(__file__).parent / "programs" / "watched_ddp.py").read_text()


def test_each_rank_keeps_its_own_gradients(home: Path) -> None:
    with scenario.started(home, PROGRAM, how=scenario.torchrun(2)) as program:
        ended = program.wait()
        assert ended.exit_code == 0, ended.stderr[-4000:]
        told = [json.loads((program.directory / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert not ended.left
    assert "allranks:" not in ended.stderr
    with scenario.stored(home) as stored:
        rows = stored.rows(
            "SELECT w.rank, o.step, s.key, o.body FROM objects o JOIN series s USING (series) JOIN writers w"
            " USING (writer) ORDER BY o.rowid"
        )
        assert len(stored.runs()) == 1
    found = {(rank, step, key): json.loads(body) for rank, step, key, body in rows}
    assert len(found) == len(rows)
    expected = {(rank, row["step"], row["key"]): row["figures"] for rank in (0, 1) for row in told[rank]}
    assert found.keys() == expected.keys()
    for place, histogram in found.items():
        assert_is_sane(histogram)
        for name, value in expected[place].items():
            assert histogram[name] == pytest.approx(value, rel=1e-5, abs=1e-9), (place, name)
    # Gradients differ between ranks, and parameters do not.
    assert found[0, 100, "gradients/0.weight"] != found[1, 100, "gradients/0.weight"]
    assert found[0, 100, "parameters/0.weight"] == found[1, 100, "parameters/0.weight"]
    assert {rank for rank, step, key in found if (step, key) == (1000, "gradients/0.bias")} == {0}


def assert_is_sane(histogram: dict[str, Any]) -> None:
    assert histogram["_type"] == "histogram"
    assert len(histogram["bins"]) == 65
    assert len(histogram["counts"]) == 64
    assert histogram["bins"] == sorted(histogram["bins"])
    assert sum(histogram["counts"]) == histogram["count"]
    assert all(type(number) is int and number >= 0 for number in histogram["counts"])
    assert histogram["bins"][0] <= histogram["min"] <= histogram["mean"] <= histogram["max"] <= histogram["bins"][-1]
    assert "nonfinite" not in histogram
    assert "sample_of" not in histogram
