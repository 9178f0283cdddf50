"""Hugging Face's Trainer: what it logs is kept once, what differs between ranks of each."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from tests.support import scenario
from tests.support.stored import Stored
from torch import nn

from allranks._config import Config
from allranks._sections import Sections
from allranks.integrations.transformers import AllranksCallback

PROGRAM = (Path(__file__).parent / "programs" / "hf_trainer.py").read_text()
STEPS = [1, 2, 3, 4]
SAMPLES_A_STEP = 4  # of each rank: two micro-batches of two


def series(stored: Stored, rank: int) -> dict[str, list[tuple[int, float]]]:
    """What a rank has logged: steps and values by name, in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, step, value in stored.rows(
        "SELECT s.key, p.step, p.value FROM points p JOIN series s USING (series) JOIN writers w USING (writer)"
        " WHERE w.rank = ? AND s.kind = 'metric' ORDER BY p.rowid",
        rank,
    ):
        found.setdefault(key, []).append((step, value))
    return found


def test_two_ranks_train_as_one_run(home: Path) -> None:
    with scenario.started(home, PROGRAM, how=scenario.torchrun(2)) as program:
        ended = program.wait()
        assert ended.exit_code == 0, ended.stderr[-4000:]
        history: list[dict[str, float]] = json.loads((program.directory / "history.json").read_text())
        written = [path for path in (program.directory / "out").rglob("*") if path.is_file()]
    assert not ended.left
    assert "allranks:" not in ended.stderr
    with scenario.stored(home, is_complete=lambda: not list((home / "spool").glob("outbox-*"))) as stored:
        (run,) = stored.runs()
        writers = stored.writers(run)
        assert [(writer.rank, writer.role, writer.state) for writer in writers] == [
            (0, "rank", "finished"),
            (1, "rank", "finished"),
        ]
        assert stored.rows("SELECT project, name FROM runs") == [("hf", "tiny")]
        zero, one = series(stored, 0), series(stored, 1)
        config = dict(stored.rows("SELECT key, value FROM config"))
        summary = dict(stored.rows("SELECT key, value FROM summary"))
        assert not stored.rows("SELECT 1 FROM config JOIN writers USING (writer) WHERE rank = 1")
        sections = {(r, s) for r, s in stored.rows("SELECT rank, section FROM sections JOIN writers USING (writer)")}
        files = {name: (size, digest) for name, size, digest in stored.rows("SELECT name, size, digest FROM files")}

    # All that the Trainer says it has logged, once, and under its known names.
    said = [entry for entry in history if "loss" in entry]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert zero[f"train/{name}"] == [(entry["step"], entry[name]) for entry in said]
    (evaluated,) = [entry for entry in history if "eval_loss" in entry]
    assert zero["eval/loss"] == [(4, evaluated["eval_loss"])]
    assert not [name for name in one if name.startswith(("train/", "eval/"))]
    (whole,) = [entry for entry in history if "train_runtime" in entry]
    assert json.loads(summary["train_loss"]) == whole["train_loss"]
    assert json.loads(config["n_embd"]) == 8
    assert json.loads(config["learning_rate"]) == 0.01
    assert json.loads(config["model/num_parameters"]) > 1000

    assert sections == {(0, "checkpoint"), (1, "checkpoint")}

    # The checkpoint is there to the last byte, with the random state of each rank.
    names = {f"checkpoint-4/{path.name}": path.stat().st_size for path in written}
    assert {"checkpoint-4/model.safetensors", "checkpoint-4/rng_state_0.pth", "checkpoint-4/rng_state_1.pth"} <= set(
        names
    )
    assert {name: size for name, (size, _) in files.items()} == names

    # And of each rank what is its own: the Trainer's loss is the mean of theirs.
    for mine in (zero, one):
        assert [step for step, _ in mine["rank/loss"]] == STEPS
        seconds, rates = ([value for _, value in mine[f"rank/{name}"]] for name in ("step_s", "samples_per_s"))
        assert [a * b for a, b in zip(seconds, rates, strict=True)] == pytest.approx([SAMPLES_A_STEP] * len(STEPS))
    means = [(a + b) / 2 for (_, a), (_, b) in zip(zero["rank/loss"], one["rank/loss"], strict=True)]
    assert means == pytest.approx([entry["loss"] for entry in said], rel=1e-5)
    assert zero["rank/loss"] != one["rank/loss"]


class Model(nn.Module):
    """A model that gives back its loss, as those of transformers do."""

    def forward(self, numbers: torch.Tensor, labels: torch.Tensor, **_: object) -> dict[str, torch.Tensor]:
        return {"loss": (numbers - labels).abs().mean(), "logits": numbers}


def hooks_of(model: nn.Module) -> list[Any]:
    hooks: dict[int, Any] = vars(model)["_forward_hooks"]
    return list(hooks.values())


class FakeRun:
    """A run that keeps what it is told."""

    is_finished = False

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.saved: list[tuple[str, str, str]] = []
        self.config = Config()

    def join(self, told: object) -> FakeRun:
        return self

    def log(self, data: dict[str, Any], step: int) -> None:
        self.logged.append((data, step))

    def save(self, glob: str, base_path: str, policy: str) -> None:
        self.saved.append((glob, base_path, policy))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    found = FakeRun()
    monkeypatch.setattr("allranks.integrations.transformers.joined", found.join)
    return found


def told(**more: Any) -> tuple[Any, Any, Any]:
    """Arguments, state and control as a Trainer hands them in."""
    arguments = SimpleNamespace(
        torch_compile=False,
        average_tokens_across_devices=True,
        world_size=2,
        train_batch_size=3,
        gradient_accumulation_steps=2,
        output_dir="out",
        run_name=None,
        process_index=1,
        to_sanitized_dict=dict,
    )
    state = SimpleNamespace(is_hyper_param_search=False, is_world_process_zero=True, global_step=7, trial_name=None)
    for name, value in more.items():
        setattr(state if hasattr(state, name) else arguments, name, value)
    return arguments, state, SimpleNamespace(should_evaluate=False, should_save=False)


def stepped(callback: AllranksCallback, model: nn.Module, *batches: dict[str, Any], **more: Any) -> None:
    """A training of one step, of these micro-batches."""
    callback.on_train_begin(*told(**more), model=model)
    callback.on_step_begin(*told(**more))
    for batch in batches:
        model(**batch)
    callback.on_step_end(*told(**more), model=model)


def batch(loss: float, samples: int = 3, **more: Any) -> dict[str, Any]:
    return {"numbers": torch.full((samples, 2), loss), "labels": torch.zeros(samples, 2), **more}


def test_a_ranks_own_loss_is_the_mean_of_its_micro_batches(run: FakeRun) -> None:
    stepped(AllranksCallback(), Model(), batch(1.0, 3), batch(2.0, 2))
    ((signals, step),) = run.logged
    assert step == 7
    assert float(signals["rank/loss"]) == 1.5
    assert signals["rank/samples_per_s"] * signals["rank/step_s"] == pytest.approx(5)


def test_a_loss_that_is_a_share_of_all_ranks_is_made_whole(run: FakeRun) -> None:
    stepped(AllranksCallback(), Model(), batch(1.0, num_items_in_batch=8), batch(2.0, num_items_in_batch=8))
    assert float(run.logged[0][0]["rank/loss"]) == 6.0


def test_an_evaluation_in_between_is_not_taken_for_training(run: FakeRun) -> None:
    callback, model = AllranksCallback(), Model()
    callback.on_train_begin(*told(), model=model)
    callback.on_step_begin(*told())
    model.eval()
    model(**batch(100.0))
    model.train()
    model(**batch(1.0))
    callback.on_step_end(*told(), model=model)
    assert float(run.logged[0][0]["rank/loss"]) == 1.0


def test_a_compiled_model_is_left_alone(run: FakeRun) -> None:
    model = Model()
    stepped(AllranksCallback(), model, batch(1.0), torch_compile=True)
    assert not hooks_of(model)
    ((signals, _),) = run.logged
    assert "rank/loss" not in signals
    assert signals["rank/samples_per_s"] * signals["rank/step_s"] == pytest.approx(6)


def test_the_end_of_the_training_leaves_the_model_as_it_was(run: FakeRun) -> None:
    callback, model = AllranksCallback(), Model()
    stepped(callback, model, batch(1.0))
    callback.on_train_end(*told())
    assert not hooks_of(model)


def test_a_model_in_training_is_copied_and_pickled(run: FakeRun) -> None:
    callback, model = AllranksCallback(), Model()
    callback.on_train_begin(*told(), model=model)
    callback.on_step_begin(*told())
    model(**batch(1.0))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(**batch(100.0))
    callback.on_step_end(*told(), model=model)
    assert float(run.logged[0][0]["rank/loss"]) == 1.0


def test_it_pickles_and_forgets_its_run(run: FakeRun) -> None:
    callback = AllranksCallback(project="p", log_model=True)
    stepped(callback, Model(), batch(1.0))
    other = pickle.loads(pickle.dumps(callback))
    stepped(other, Model(), batch(2.0))
    assert [float(signals["rank/loss"]) for signals, _ in run.logged] == [1.0, 2.0]


@pytest.mark.parametrize(("is_zero", "name"), [(True, "**"), (False, "rng_state_1.pth")])
def test_checkpoints_are_saved_where_that_is_asked_for(run: FakeRun, is_zero: bool, name: str) -> None:
    AllranksCallback().on_save(*told(is_world_process_zero=is_zero))
    AllranksCallback(log_model=True).on_save(*told(is_world_process_zero=is_zero))
    assert run.saved == [(f"out/checkpoint-7/{name}", "out", "now")]


def test_without_the_framework_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import allranks.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("needs transformers: pip install transformers")


def test_what_the_trainer_does_between_steps_is_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = Sections()
    run = SimpleNamespace(section=sections.section, log=MagicMock(), is_finished=False, config={})
    monkeypatch.setattr("allranks.integrations.transformers.joined", MagicMock(return_value=run))
    callback: Any = AllranksCallback()
    state = SimpleNamespace(is_world_process_zero=False, is_hyper_param_search=False, global_step=1)
    args = SimpleNamespace(
        run_name=None,
        world_size=1,
        average_tokens_across_devices=False,
        train_batch_size=1,
        gradient_accumulation_steps=1,
        output_dir=None,
        torch_compile=True,
    )
    control = SimpleNamespace(should_evaluate=True, should_save=True)

    def phase_after(hook: str) -> str:
        getattr(callback, hook)(args, state, control)
        return str(sections.status()["phase"])

    hooks = ("on_train_begin", "on_step_begin", "on_step_end", "on_evaluate", "on_save", "on_step_begin")
    assert [phase_after(hook) for hook in hooks] == ["init", "init", "evaluation", "checkpoint", "init", "init"]
    control.should_evaluate = False
    later = ("on_step_end", "on_save", "on_epoch_end", "on_train_end", "on_evaluate")
    assert [phase_after(hook) for hook in later] == ["checkpoint", "init", "checkpoint", "init", "init"]
