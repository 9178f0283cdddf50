"""finish() while threads go on logging: what was accepted is stored, and the rest is refused in a clear way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tests.faults.programs import finishing
from tests.support.collector import CollectorProcess
from tests.support.stored import stored_in
from tests.support.training import Job

_ROUNDS = 6


def test_everything_that_was_accepted_before_the_end_is_stored(collector: CollectorProcess, tmp_path: Path) -> None:
    report_path = tmp_path / "report.json"
    with Job(collector.home, collector.url, program="finishing").ranks(1, str(report_path), str(_ROUNDS)) as ranks:
        assert ranks[0].wait() == 0, ranks[0].stderr
        collector.await_drained()
        collector.stop()
        report = json.loads(report_path.read_text())
        assert len(report) == _ROUNDS
        with stored_in(collector.database) as stored:
            for nth, status in enumerate(report):
                assert status["finished"]
                position = stored.one(
                    "SELECT next_seq FROM positions JOIN writers USING (writer) JOIN runs USING (run)"
                    " WHERE runs.id = ? AND role = 'rank'",
                    f"round-{nth}",
                )
                assert (status["logged"], status["acked"]) == (position, position)
            assert stored.events("closed") == _ROUNDS
            for number in range(finishing.THREADS):
                for nth in range(_ROUNDS):
                    steps = stored.rows(
                        "SELECT step FROM points JOIN series USING (series) JOIN writers USING (writer)"
                        " JOIN runs USING (run) WHERE runs.id = ? AND key = ? ORDER BY points.rowid",
                        *(f"round-{nth}", f"thread-{number}"),
                    )
                    assert np.array_equal([step for (step,) in steps], np.arange(len(steps)))
        # One run after the other leaves nothing open.
        assert report[-1]["descriptors"] <= report[1]["descriptors"]
        for line in ranks[0].stderr.splitlines():
            assert "has ended: what is logged now is not kept" in line or "the spool is closed" in line
