"""The logger for Lightning: what it tells its run, and when; with a real Trainer where only that shows it."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from tests.support.spools import logged, of_kind, spooled
from torch.utils.data import DataLoader, TensorDataset

import allranks
from allranks.integrations import lightning as integration
from allranks.integrations.lightning import AllranksLogger
from allranks_bus.events import Kind

# Lightning warns of much that does not concern us: of few workers, of what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, sdk_home: Path) -> None:
    monkeypatch.setenv("ALLRANKS_MODE", "offline")
    monkeypatch.setenv("ALLRANKS_CONSOLE", "off")


def kept(home: Path) -> list[tuple[int, dict[str, Any]]]:
    return logged(spooled(home / "spool"))


def opened(home: Path) -> dict[str, Any]:
    """How the one process that has a log says what it is."""
    ((_, _, first), *_) = of_kind(spooled(home / "spool"), Kind.OPEN)
    return cast("dict[str, Any]", first)


def configured(home: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for event in of_kind(spooled(home / "spool"), Kind.CONFIG):
        settings |= event[2]
    return settings


class Line(LightningModule):
    """Learns a line; logs its loss, and in validation its error."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), 2 * batch[0])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/loss", torch.nn.functional.mse_loss(self.layer(batch[0]), 2 * batch[0]))

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("test/loss", torch.nn.functional.mse_loss(self.layer(batch[0]), 2 * batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def data() -> Any:
    return DataLoader(TensorDataset(torch.linspace(0, 1, 8).reshape(8, 1)), batch_size=2)


def trainer(logger: AllranksLogger, **arguments: Any) -> Trainer:
    few: dict[str, Any] = {"max_epochs": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 0}
    few |= {"enable_progress_bar": False, "enable_model_summary": False, **arguments}
    return Trainer(accelerator="cpu", devices=1, logger=logger, **few)


def test_a_training_is_stored_against_its_global_step_with_its_epoch(sdk_home: Path) -> None:
    logger = AllranksLogger(project="p", name="n", tags=["a"])
    trainer(logger, enable_checkpointing=False).fit(Line(), data(), data())
    events = kept(sdk_home)
    training = [(step, fields["epoch"]) for step, fields in events if "train/loss" in fields]
    assert training == [(step, step // 4) for step in range(8)]
    assert [(step, fields["epoch"]) for step, fields in events if "val/loss" in fields] == [(3, 0), (7, 1)]
    assert configured(sdk_home) == {"lr": 0.1}
    run = opened(sdk_home)
    assert (run["project"], run["name"], run["tags"], run["rank"]) == ("p", "n", ["a"], 0)


def test_what_follows_a_training_is_stored_in_the_same_run(sdk_home: Path) -> None:
    logger = AllranksLogger()
    training = trainer(logger, enable_checkpointing=False)
    training.fit(Line(), data())
    training.test(Line(), data(), verbose=False)
    allranks.log({"mine": 1.0})
    names = [name for _, fields in kept(sdk_home) for name in fields]
    assert {"train/loss", "test/loss", "mine"} <= set(names)
    assert len(of_kind(spooled(sdk_home / "spool"), Kind.OPEN)) == 1


def test_checkpoints_lie_in_the_runs_directory_by_themselves(sdk_home: Path) -> None:
    logger = AllranksLogger()
    trainer(logger).fit(Line(), data())
    (checkpoint,) = Path(logger.save_dir).rglob("*.ckpt")
    assert checkpoint.name == "epoch=1-step=8.ckpt"


def test_making_one_starts_nothing_and_tells_where_the_run_will_be(sdk_home: Path) -> None:
    logger = AllranksLogger("p", name="n", id="mine", save_dir=sdk_home / "results", config={"lr": 1})
    assert (logger.name, logger.version) == ("n", "mine")
    assert logger.save_dir == logger.root_dir == logger.log_dir == str(sdk_home / "results" / "mine")
    assert allranks.run.dir == logger.save_dir
    assert spooled(sdk_home / "spool") == []
    run = logger.experiment
    assert (run.id, run.dir, run.project, run.is_started) == ("mine", logger.save_dir, "p", True)
    assert configured(sdk_home) == {"lr": 1}


def test_it_joins_the_run_that_init_has_been_called_for(sdk_home: Path) -> None:
    run = allranks.init(project="p", name="n")
    logger = AllranksLogger(project="q", name="m", config={"lr": 1})
    logger.log_metrics({"loss": 1.0}, step=3)
    assert logger.experiment is run
    assert (run.project, run.name, run.config.lr) == ("p", "n", 1)
    assert kept(sdk_home) == [(3, {"loss": 1.0})]


def test_it_follows_an_init_that_came_after_it_with_its_configuration() -> None:
    logger = AllranksLogger(config={"lr": 1})
    run = allranks.init(id="other")
    assert logger.experiment is run
    assert (logger.version, run.config.lr) == ("other", 1)


def test_it_logs_into_the_run_that_it_is_given(sdk_home: Path) -> None:
    run = allranks.init()
    logger = AllranksLogger(run=run)
    allranks.finish()
    other = allranks.init()
    assert logger.experiment is run is not other


def test_every_rank_logs(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    AllranksLogger(project="p").log_metrics({"loss": 1.0}, 0)
    assert kept(sdk_home) == [(0, {"loss": 1.0})]
    run = opened(sdk_home)
    assert (run["rank"], run["world_size"], run["project"]) == (1, 2, "p")


def test_a_rank_that_is_told_nothing_leaves_the_project_to_the_others(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    AllranksLogger().log_metrics({"loss": 1.0}, 0)
    assert opened(sdk_home)["implied"]


class _Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("params", [Namespace(lr=1, model={"depth": 2}), {"lr": 1, "model": {"depth": 2}}])
def test_hyperparameters_of_any_form_are_the_configuration(sdk_home: Path, params: Any) -> None:
    logger = AllranksLogger()
    logger.log_hyperparams(params)
    logger.log_metrics({"loss": 1.0}, 0)
    assert configured(sdk_home) == {"lr": 1, "model": {"depth": 2}}


def test_hyperparameters_that_have_no_form_are_stored_as_text_or_named(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = AllranksLogger()
    _ = logger.experiment
    logger.log_hyperparams({"odd": _Odd(), "activation": torch.nn.ReLU, "hook": lambda: None, "lr": 1})
    logger.log_hyperparams(cast("Any", 3))
    stored = configured(sdk_home)
    assert (stored["odd"], stored["lr"]) == ("<_Odd>", 1)
    assert "ReLU" in stored["activation"]
    assert "int is not stored" in capsys.readouterr().err
    pickle.dumps(logger)


def test_a_prefix_stands_before_all_names(sdk_home: Path) -> None:
    AllranksLogger(prefix="student").log_metrics({"loss": 1.0}, 0)
    assert kept(sdk_home) == [(0, {"student/loss": 1.0})]


def test_text_is_stored_and_what_is_not_says_so_once(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = AllranksLogger()
    logger.log_text("sample", "once upon a time", step=1)
    logger.log_text("samples", columns=["prompt", "score"], data=[["a", 1], ["b", 2]], step=2)
    for _ in range(2):
        logger.log_table("table", columns=["a"], data=[[1]])
        logger.log_image("image", [None])
        logger.log_audio("audio", [None], sample_rate=[1])
        logger.log_video("video", [None])
        logger.log_html("html", ["<b>"])
        logger.log_graph(Line(), torch.zeros(1))
        logger.watch(Line(), log_graph=True)
    assert kept(sdk_home) == [(1, {"sample": "once upon a time"}), (2, {"samples": "prompt\tscore\na\t1\nb\t2"})]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == [
        "log_table: tables are not stored",
        "log_image: images are not stored",
        "log_audio: sounds are not stored",
        "log_video: videos are not stored",
        "log_html: pages are not stored",
        "log_graph: graphs of a model are not stored",
    ]


def gradients_kept(home: Path) -> set[str]:
    return {name for _, fields in kept(home) for name in fields if name.startswith("gradients/")}


def test_a_model_that_is_watched_before_the_run_is_there_is_watched_from_its_start(sdk_home: Path) -> None:
    logger, model = AllranksLogger(), Line()
    logger.watch(model, log_freq=1)
    model.layer(torch.ones(1, 1)).sum().backward()
    assert spooled(sdk_home / "spool") == []
    _ = logger.experiment
    for _ in range(2):
        model.layer(torch.ones(1, 1)).sum().backward()
    assert gradients_kept(sdk_home) == {"gradients/layer.weight", "gradients/layer.bias"}


@pytest.mark.parametrize("is_started", [False, True])
def test_a_model_that_is_not_watched_any_more_leaves_no_trace(sdk_home: Path, is_started: bool) -> None:
    logger, model = AllranksLogger(), Line()
    if is_started:
        _ = logger.experiment
    logger.watch(model, log_freq=1)
    logger.unwatch(model)
    _ = logger.experiment
    for _ in range(2):
        model.layer(torch.ones(1, 1)).sum().backward()
    assert gradients_kept(sdk_home) == set()


def test_a_pickle_watches_its_copy_of_the_model_in_the_same_run(sdk_home: Path) -> None:
    logger, model = AllranksLogger(project="p"), Line()
    _ = logger.experiment
    logger.watch(model, log_freq=1)
    other, its_model = pickle.loads(pickle.dumps((logger, model)))
    assert other.experiment is logger.experiment
    logger.unwatch(model)
    for _ in range(2):
        its_model.layer(torch.ones(1, 1)).sum().backward()
    assert gradients_kept(sdk_home) == {"gradients/layer.weight", "gradients/layer.bias"}


def test_a_deep_copy_logs_into_the_same_run_and_copies_no_model() -> None:
    logger, model = AllranksLogger(), Line()
    logger.watch(model)
    assert copy.deepcopy(logger).experiment is logger.experiment


class _Raises(Line):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        raise self.error


def closing(home: Path) -> Mapping[str, Any]:
    ((_, _, end),) = of_kind(spooled(home / "spool"), Kind.CLOSE)
    return cast("Mapping[str, Any]", end)


@pytest.mark.parametrize(("error", "raised"), [(ValueError("nan"), ValueError), (KeyboardInterrupt(), SystemExit)])
def test_an_exception_that_ends_the_training_is_kept(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[BaseException]
) -> None:
    monkeypatch.setattr("signal.signal", print)  # Lightning would keep Ctrl-C from this process
    logger = AllranksLogger()
    with pytest.raises(raised):
        trainer(logger, enable_checkpointing=False).fit(_Raises(error), data())
    logger.experiment.finish()
    assert closing(sdk_home)["exception"]["type"] == type(error).__name__
    assert closing(sdk_home)["exit_code"] == 1


def test_an_exception_that_the_program_has_got_over_is_forgotten(sdk_home: Path) -> None:
    logger = AllranksLogger()
    with pytest.raises(ValueError, match="nan"):
        trainer(logger, enable_checkpointing=False).fit(_Raises(ValueError("nan")), data())
    trainer(logger, enable_checkpointing=False).fit(Line(), data())
    logger.experiment.finish()
    assert "exception" not in closing(sdk_home)


def test_an_interrupted_rank_that_is_killed_next_has_ended_its_part(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    logger = AllranksLogger()
    logger.log_metrics({"loss": 1.0}, 0)
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        logger.finalize("failed")
    assert closing(sdk_home)["exception"]["type"] == "KeyboardInterrupt"


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What runs have been asked to save: patterns, and what their names are relative to."""
    calls: list[tuple[str, str]] = []

    def save(_run: object, glob: str, base_path: str | None = None, policy: str = "live") -> list[str]:
        assert policy == "now"
        calls.append((str(Path(glob).relative_to(str(base_path))), str(base_path)))
        return []

    monkeypatch.setattr(allranks.Run, "save", save)
    return calls


def checkpointed(home: Path, directory: Path, log_model: bool | str) -> AllranksLogger:
    logger = AllranksLogger(log_model=log_model)
    writer = ModelCheckpoint(dirpath=directory, every_n_train_steps=2, save_top_k=-1)
    trainer(logger, callbacks=[writer]).fit(Line(), data())
    return logger


@pytest.mark.parametrize(("log_model", "steps"), [(False, ()), (True, (8,)), ("all", (2, 4, 6, 8))])
def test_checkpoints_elsewhere_are_saved_as_is_asked_for(
    sdk_home: Path, tmp_path: Path, saved: list[tuple[str, str]], log_model: bool | str, steps: tuple[int, ...]
) -> None:
    checkpointed(sdk_home, tmp_path / "checkpoints", log_model)
    assert saved == [(f"checkpoints/epoch={step // 5}-step={step}.ckpt", str(tmp_path)) for step in steps]


def test_checkpoints_in_the_runs_directory_need_no_saving(sdk_home: Path, saved: list[tuple[str, str]]) -> None:
    checkpointed(sdk_home, Path(allranks.run.dir) / "checkpoints", "all")
    assert saved == []


def test_of_a_sharded_checkpoint_all_files_are_saved(tmp_path: Path, saved: list[tuple[str, str]]) -> None:
    folder = tmp_path / "shards" / "last.ckpt"
    folder.mkdir(parents=True)
    logger = AllranksLogger(log_model="all")
    logger.after_save_checkpoint(SimpleNamespace(last_model_path=str(folder)))
    assert saved == [("shards/last.ckpt/**", str(tmp_path))]


def test_of_two_packages_that_of_the_program_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class TheirLogger(Logger):  # type: ignore[misc,unused-ignore]
        pass

    package, loggers = ModuleType("pytorch_lightning"), ModuleType("pytorch_lightning.loggers")
    loggers.Logger = TheirLogger  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    monkeypatch.setitem(sys.modules, "pytorch_lightning", package)
    monkeypatch.setitem(sys.modules, "pytorch_lightning.loggers", loggers)
    assert issubclass(loaded_anew().AllranksLogger, TheirLogger)


def test_without_lightning_the_import_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lightning", "pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install lightning"):
        loaded_anew()


def loaded_anew() -> Any:
    """The module, as a program that has imported less gets it."""
    assert integration.__file__
    spec = importlib.util.spec_from_file_location("integration_loaded_anew", integration.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_validation_and_checkpoints_are_sections(sdk_home: Path, tmp_path: Path) -> None:
    logger = AllranksLogger(project="p")
    samples = DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8, 1)), batch_size=2)
    sections = integration.AllranksSections()
    trainer = Trainer(
        max_epochs=2,
        logger=logger,
        callbacks=[sections, ModelCheckpoint(dirpath=tmp_path / "checkpoints")],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Line(), samples, samples)
    pickle.loads(pickle.dumps(sections))
    allranks.finish()
    found = {name for event in of_kind(spooled(sdk_home / "spool"), Kind.SECTIONS) for name in event[2]["sections"]}
    assert found == {"data", "evaluation", "checkpoint"}
