"""A training that writes for TensorBoard, with one changed line: what a real collector has stored of it."""

from __future__ import annotations

from pathlib import Path

from tests.support import scenario
from tests.support.collector import CollectorProcess

from allranks import Client

SCRIPT = """
import numpy as np

from allranks.integrations.tensorboard import SummaryWriter

for lr in (0.1, 0.2):
    train, val = SummaryWriter(f"runs/lr-{lr}/train"), SummaryWriter(f"runs/lr-{lr}/val")
    for epoch in range(3):
        train.add_scalar("loss", lr * epoch, epoch)
        val.add_scalar("loss", 2 * lr * epoch, epoch)
        train.add_histogram("weights", np.random.normal(size=1000), epoch)
        train.add_scalars("time", {"data": 1, "step": 2}, epoch, walltime=1_700_000_000 + epoch)
        train.add_image("sample", np.zeros((3, 8, 8)), epoch)
    train.add_text("note", "done")
    train.add_hparams({"lr": lr, "model": "linear"}, {"hparam/loss": lr})
    train.close()
    val.close()
"""


def test_each_pair_of_writers_is_a_run_with_all_that_was_added(tmp_path: Path) -> None:
    with CollectorProcess(tmp_path / "home") as collector:
        env = {"ALLRANKS_URL": collector.url, "ALLRANKS_PROJECT": "board"}
        ended = scenario.run(collector.home, SCRIPT, env=env)
        assert (ended.exit_code, ended.left) == (0, {}), ended.stderr
        assert ended.stderr.splitlines() == ["allranks: SummaryWriter.add_image: images are not stored; the rest is"]
        collector.await_drained()
        client = Client(collector.http)
        runs = sorted(client.runs("board"), key=lambda run: float(run["config"]["lr"]))
        assert [run["config"] for run in runs] == [{"lr": lr, "model": "linear"} for lr in (0.1, 0.2)]
        for run, lr in zip(runs, (0.1, 0.2), strict=True):
            table = client.history(run["id"])
            points = sorted(zip(table["key"], table["step"], table["value"], strict=True))
            assert points == [
                ("hparam/loss", 2, lr),
                *(("loss", epoch, lr * epoch) for epoch in range(3)),
                *(("time/data", epoch, 1.0) for epoch in range(3)),
                *(("time/step", epoch, 2.0) for epoch in range(3)),
                *(("val/loss", epoch, 2 * lr * epoch) for epoch in range(3)),
            ]
            times = {time for key, time in zip(table["key"], table["time"], strict=True) if key == "time/data"}
            assert times == {1_700_000_000.0 + epoch for epoch in range(3)}
            objects = client.objects(run["id"])
            kinds = sorted(zip(objects["key"], objects["type"], objects["step"], strict=True))
            assert kinds == [("note", "text", 2), *(("weights", "histogram", epoch) for epoch in range(3))]
