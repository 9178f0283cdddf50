"""Scripts as people write them for wandb, with one changed import: what a real collector has stored of each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario
from tests.support.collector import CollectorProcess
from tests.support.stored import stored_in
from tests.support.waiting import wait_until

from allranks import Client

# The line that changes.
IMPORT = "import allranks.compat.wandb as wandb"

Points = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Script:
    """A script, and what is stored of it.

    Attributes:
        text: the script; its project is its own name, so that its runs can be found.
        points: of each of its runs, in the order in which they began: (step, value) of each key.
        config, summary: entries that the newest run has, all others being of no interest.
        objects: of the newest run: the keys of what is no number, and its type.
        alerts: titles and levels.
        says: what is in its stderr. exit_code: how it ends.
        of_run: what the API says of the newest run beside that.
        env: what is in its environment.
    """

    text: str
    points: list[Points]
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    objects: dict[str, str] = field(default_factory=dict[str, str])
    alerts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    says: tuple[str, ...] = ()
    exit_code: int = 0
    of_run: dict[str, Any] = field(default_factory=dict[str, Any])
    env: dict[str, str] = field(default_factory=dict[str, str])


def at(*values: float, start: int = 0) -> list[tuple[int, float]]:
    """Points at steps that count by themselves."""
    return list(enumerate(map(float, values), start))


SCRIPTS = {
    "training_loop": Script(
        """
        import argparse

        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float, default=0.1)
        parser.add_argument("--epochs", type=int, default=3)
        args = parser.parse_args()

        wandb.init(project="training_loop", entity="my-team", config=args, tags=["baseline"], notes="first try")
        best = 0
        for epoch in range(wandb.config.epochs):
            loss, acc = 1 / (epoch + 1), epoch / 10
            wandb.log({"epoch": epoch, "train/loss": loss, "val/acc": acc})
            if acc > best:
                best = acc
                wandb.run.summary["best_acc"] = best
        wandb.finish()
        """,
        [{"epoch": at(0, 1, 2), "train/loss": at(1, 1 / 2, 1 / 3), "val/acc": at(0, 0.1, 0.2)}],
        config={"lr": 0.1, "epochs": 3},
        summary={"best_acc": 0.2, "epoch": 2.0},
        says=("wandb.init(entity) is left out",),
        of_run={"tags": ["baseline"], "notes": "first try", "state": "finished"},
    ),
    "nested": Script(
        """
        run = wandb.init(project="nested", config={"model": {"layers": 2, "act": "relu"}})
        for i in range(2):
            run.log({"train": {"loss": i, "grad": {"norm": 2 * i}}, "lr": 0.1})
        run.finish()
        """,
        [{"train/loss": at(0, 1), "train/grad/norm": at(0, 2), "lr": at(0.1, 0.1)}],
        config={"model": {"layers": 2, "act": "relu"}},
    ),
    "several_calls_a_step": Script(
        """
        wandb.init(project="several_calls_a_step")
        for batch in range(3):
            wandb.log({"loss": batch}, commit=False)
            if batch == 1:
                wandb.log({"val": 0.5}, commit=False)
            wandb.log({"lr": 0.1})
        wandb.log({"test": 7}, step=10)
        wandb.log({"late": 1}, step=4)
        """,
        [
            {
                "loss": at(0, 1, 2),
                "val": [(1, 0.5)],
                "lr": at(0.1, 0.1, 0.1),
                "test": [(10, 7.0)],
                "late": [(4, 1.0)],
            },
        ],
        says=("step 4 comes after step 10",),
    ),
    "definitions": Script(
        """
        wandb.init(project="definitions")
        wandb.define_metric("epoch")
        wandb.define_metric("val/*", step_metric="epoch")
        wandb.define_metric("val/acc", summary="max")
        for epoch, acc in enumerate([0.2, 0.9, 0.5]):
            wandb.log({"epoch": epoch, "val/acc": acc})
        """,
        [{"epoch": at(0, 1, 2), "val/acc": at(0.2, 0.9, 0.5)}],
        summary={"val/acc": 0.9, "epoch": 2.0},
    ),
    "pictures_beside_numbers": Script(
        """
        import numpy as np

        wandb.init(project="pictures_beside_numbers")
        table = wandb.Table(columns=["id", "image", "guess"])
        for step in range(2):
            pixels = np.zeros((4, 4, 3), np.uint8)
            table.add_data(step, wandb.Image(pixels), "cat")
            wandb.log({
                "loss": step,
                "examples": [wandb.Image(pixels, caption="one"), wandb.Image(pixels, caption="two")],
                "weights": wandb.Histogram(np.arange(10)),
                "counted": wandb.Histogram(np_histogram=np.histogram(np.arange(10), bins=5)),
                "gradients": np.arange(100.0),
            })
        wandb.log({"predictions": table, "confusion": wandb.plot.confusion_matrix(y_true=[1], preds=[1]), "acc": 1})
        print("rows:", len(table.data))
        """,
        [{"loss": at(0, 1), "acc": [(2, 1.0)]}],
        objects={"weights": "histogram", "counted": "histogram", "gradients": "histogram"},
        says=("wandb.Image is left out", "wandb.Table is left out", "wandb.plot.confusion_matrix is left out"),
    ),
    "alerts": Script(
        """
        run = wandb.init(project="alerts")
        for step in range(3):
            if step > 0:
                run.alert(title="Low accuracy", text=f"at {step}", level=wandb.AlertLevel.WARN, wait_duration=300)
            run.log({"acc": step})
        wandb.alert("Done", "all of it")
        """,
        [{"acc": at(0, 1, 2)}],
        alerts=[("Low accuracy", "WARN"), ("Done", "INFO")],
    ),
    "sweep_by_hand": Script(
        """
        for lr in (0.1, 0.2, 0.3):
            run = wandb.init(project="sweep_by_hand", group="sweep", name=f"lr-{lr}", config={"lr": lr}, reinit=True)
            for step in range(2):
                wandb.log({"loss": lr * step})
            if lr == 0.1:
                run.finish()
        """,
        [{"loss": at(0, 0.1)}, {"loss": at(0, 0.2)}, {"loss": at(0, 0.3)}],
        config={"lr": 0.3},
        of_run={"group": "sweep", "name": "lr-0.3"},
    ),
    "an_exception_in_a_with": Script(
        """
        with wandb.init(project="an_exception_in_a_with", job_type="eval") as run:
            run.log({"loss": 1})
            raise ValueError("diverged")
        """,
        [{"loss": at(1)}],
        says=("ValueError: diverged",),
        exit_code=1,
        of_run={"state": "failed", "tags": ["eval"]},
    ),
    "no_finish": Script(
        """
        wandb.login(key="0" * 40)
        wandb.require("core")
        run = wandb.init(project="no_finish", settings=wandb.Settings(start_method="thread"), anonymous="allow")
        wandb.config.update({"seed": 1}, allow_val_change=True)
        wandb.log({"loss": 1})
        print(f"run {run.id} at {run.get_url()}, {run.path}, {wandb.run.dir}")
        """,
        [{"loss": at(1)}],
        config={"seed": 1},
    ),
    "renamed": Script(
        """
        wandb.init(project="renamed", name="first")
        wandb.run.name = "second-" + wandb.config.get("suffix", "x")
        wandb.run.tags = ("late",)
        wandb.run.save()
        wandb.log({"a": 1})
        """,
        [{"a": at(1)}],
        of_run={"name": "second-x", "tags": ["late"]},
    ),
    "guarded_ranks": Script(
        """
        is_main = False
        if is_main:
            wandb.init(project="guarded_ranks")
        for step in range(3):
            if wandb.run is not None:
                wandb.log({"loss": step})
        wandb.finish()
        assert wandb.run is None
        """,
        [],
    ),
    "disabled": Script(
        """
        wandb.init(project="disabled", config={"lr": 1})
        wandb.log({"loss": wandb.config.lr})
        wandb.summary["a"] = wandb.config["lr"]
        print(wandb.run.name, wandb.run.dir, wandb.run.disabled)
        """,
        [],
        env={"WANDB_MODE": "disabled"},
    ),
    "from_the_environment": Script(
        """
        wandb.init()
        wandb.log({"loss": 1})
        """,
        [{"loss": at(1)}],
        env={"WANDB_PROJECT": "from_the_environment", "WANDB_NAME": "n", "WANDB_RUN_GROUP": "g", "WANDB_TAGS": "a,b"},
        of_run={"name": "n", "group": "g", "tags": ["a", "b"]},
    ),
    "artifacts_and_errors": Script(
        """
        from allranks.compat.wandb.errors import CommError

        run = wandb.init(project="artifacts_and_errors")
        try:
            runs = wandb.Api().runs("me/project")
        except wandb.errors.Error as error:
            assert "allranks.Client" in str(error), error
        try:
            run.use_artifact("dataset:latest").download()
        except wandb.Error as error:
            print(error)
        run.log_code(".")
        run.mark_preempting()
        wandb.log({"loss": 1})
        """,
        [{"loss": at(1)}],
        says=("wandb.log_code is left out",),
    ),
    "handed_over": Script(
        """
        import argparse, multiprocessing, os

        def train(number, args):
            args.run.log({f"child{number}": args.config["lr"] * args.config.lr})

        def main():
            args = argparse.Namespace(run=wandb.init(project="handed_over", config={"lr": 0.5}), config=wandb.config)
            context = multiprocessing.get_context("spawn")
            children = [context.Process(target=train, args=(number, args)) for number in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            if os.fork() == 0:
                wandb.log({"forked": 1})
                os._exit(0)
            os.wait()
            wandb.log({"parent": 1})

        if __name__ == "__main__":
            main()
        """,
        [{"child0": at(0.25), "child1": at(0.25), "forked": at(1), "parent": at(1)}],
        config={"lr": 0.5},
    ),
    "watched": Script(
        """
        import torch

        model = torch.nn.Linear(2, 1)
        wandb.init(project="watched")
        wandb.watch(model, torch.nn.functional.mse_loss, log="all", log_freq=1, log_graph=True)
        for step in range(3):
            loss = model(torch.ones(4, 2)).sum()
            loss.backward()
            wandb.log({"loss": loss, "step": torch.tensor(step)})
        wandb.unwatch(model)
        assert abs(wandb.summary["loss"] - loss.item()) < 1e-6
        """,
        [{"step": at(0, 1, 2)}],
        objects={"gradients/weight": "histogram", "parameters/weight": "histogram"},
        says=("wandb.watch(log_graph=True) is left out",),
    ),
}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path_factory.mktemp("wandb") / "home") as collector:
        yield collector


def run_script(collector: CollectorProcess, text: str, env: dict[str, str] | None = None) -> scenario.Ended:
    """Runs a script, with its changed import before it, to its end; nothing may be left of it."""
    url = {"ALLRANKS_URL": collector.url}
    ended = scenario.run(collector.home, f"{IMPORT}\n{textwrap.dedent(text)}", env={**url, **(env or {})})
    assert not ended.left
    return ended


def points_of(client: Client, run: str) -> Points:
    """All (step, value) of each metric of a run with one rank."""
    table = client.history(run)
    points: Points = {}
    for key, step, value in zip(table["key"], table["step"], table["value"], strict=True):
        points.setdefault(key, []).append((step, value))
    return points


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_for_wandb_runs_and_all_that_it_logs_is_stored(name: str, collector: CollectorProcess) -> None:
    script = SCRIPTS[name]
    ended = run_script(collector, script.text, script.env)
    assert ended.exit_code == script.exit_code, ended.stderr
    assert [text for text in script.says if text not in ended.stderr] == []

    collector.await_drained()
    client = Client(collector.http)
    runs = sorted(client.runs(name), key=lambda run: float(run["created_at"]))
    found = [points_of(client, run["id"]) for run in runs]
    assert [
        {key: points for key, points in of_run.items() if key in wanted or script.exit_code}
        for of_run, wanted in zip(found, script.points, strict=True)
    ] == script.points
    if not runs:
        return
    newest = runs[-1]
    assert {key: newest["config"].get(key) for key in script.config} == script.config
    assert {key: newest["summary"].get(key) for key in script.summary} == script.summary
    objects = client.objects(newest["id"])
    types = dict(zip(objects["key"], objects["type"], strict=True))
    assert {key: types.get(key) for key in script.objects} == script.objects
    alerts = [row["body"] for row in collector.get(f"/api/runs/{newest['id']}/events?kind=alert")["events"]]
    assert [(alert["title"], alert["level"]) for alert in alerts] == script.alerts
    # Its state follows from its ranks' end, which the collector looks for.
    wait_until(
        lambda: {key: client.run(newest["id"])[key] for key in script.of_run} == script.of_run,
        f"the run is {script.of_run}",
    )


FILES = """
import os

run = wandb.init(project="files")
os.makedirs("ckpts/best", exist_ok=True)
for name in ("ckpts/epoch0.pt", "ckpts/epoch1.pt", "ckpts/best/model.pt", "odd[1].txt"):
    with open(name, "w") as file:
        file.write("content of " + name)
with open(os.path.join(wandb.run.dir, "in_dir.txt"), "w") as file:
    file.write("content of in_dir.txt")
print(wandb.save("ckpts/*.pt"), run.save("none*"), wandb.save())

artifact = wandb.Artifact("model", type="model", metadata={"epoch": 1})
artifact.add_file("odd[1].txt")
artifact.add_dir("ckpts/best")
with artifact.new_file("made.txt", mode="w") as file:
    file.write("content of made.txt")
run.log_artifact(artifact, aliases=["latest"]).wait()
run.log_model("ckpts", name="all")
wandb.finish()
"""


def test_files_that_a_script_saves_are_stored_with_the_run(tmp_path: Path) -> None:
    with CollectorProcess(tmp_path / "home") as collector:
        ended = run_script(collector, FILES)
        assert ended.exit_code == 0, ended.stderr
        assert ended.stdout == "['ckpts/epoch0.pt', 'ckpts/epoch1.pt'] [] True\n"
        collector.await_drained()
        collector.stop()
        with stored_in(collector.database) as stored:
            found = dict(stored.rows("SELECT name, digest FROM files"))
    sources = {
        **{name: name for name in ("ckpts/epoch0.pt", "ckpts/epoch1.pt", "ckpts/best/model.pt")},
        **{name: name for name in ("odd[1].txt", "in_dir.txt")},
        "best/model.pt": "ckpts/best/model.pt",
        "artifacts/model/made.txt": "made.txt",
    }
    assert found == {name: sha256(f"content of {source}".encode()).hexdigest() for name, source in sources.items()}


def test_a_run_that_is_begun_again_is_resumed(collector: CollectorProcess) -> None:
    text = """
    run = wandb.init(project="resumed", id="the-run", resume="allow")
    print("resumed:", run.resumed)
    wandb.log({"loss": 1})
    """
    told = [run_script(collector, text).stdout.strip() for _ in range(2)]
    assert told == ["resumed: False", "resumed: True"]
    assert Client(collector.http).run("the-run")["attempt"] == 2
