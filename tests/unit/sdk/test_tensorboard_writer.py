"""The SummaryWriter: where its calls go, and what happens to what has no place here."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.spools import logged, of_kind, spooled

import allranks
from allranks import _current
from allranks.integrations.tensorboard import LEFT_OUT, SummaryWriter
from allranks_bus.events import Kind

# The methods of torch 2.13's SummaryWriter with their parameters; torch's own needs tensorboard to be installed.
SCALAR = ("global_step", "walltime")
PARAMETERS = {
    "__init__": ("log_dir", "comment", "purge_step", "max_queue", "flush_secs", "filename_suffix"),
    "get_logdir": (),
    "add_hparams": ("hparam_dict", "metric_dict", "hparam_domain_discrete", "run_name", "global_step"),
    "add_scalar": ("tag", "scalar_value", *SCALAR, "new_style", "double_precision"),
    "add_scalars": ("main_tag", "tag_scalar_dict", *SCALAR),
    "add_tensor": ("tag", "tensor", *SCALAR),
    "add_histogram": ("tag", "values", "global_step", "bins", "walltime", "max_bins"),
    "add_histogram_raw": (
        *("tag", "min", "max", "num", "sum", "sum_squares", "bucket_limits", "bucket_counts"),
        *SCALAR,
    ),
    "add_text": ("tag", "text_string", *SCALAR),
    "flush": (),
    "close": (),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, sdk_home: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("ALLRANKS_MODE", "offline")
    monkeypatch.chdir(tmp_path)  # where `runs` is made


def kept(home: Path) -> list[tuple[int, dict[str, Any]]]:
    return logged(spooled(home / "spool"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_method_takes_what_torchs_takes_in_its_order(name: str) -> None:
    names = [name for name in inspect.signature(getattr(SummaryWriter, name)).parameters if name != "self"]
    assert names == list(PARAMETERS[name])


def test_every_method_of_torchs_is_there_or_left_out() -> None:
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    source = Path(torch.origin).parent / "utils/tensorboard/writer.py"
    (writer,) = (
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "SummaryWriter"
    )
    names = {node.name for node in writer.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert names == {name for name in PARAMETERS if not name.startswith("_")} | set(LEFT_OUT)


def test_scalars_go_to_the_run_at_their_steps(sdk_home: Path, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "runs" / "first") as writer:
        writer.add_scalar("loss", 0.5, 10)
        writer.add_scalars("acc", {"train": 0.9, "val": 0.8}, 10)
    assert kept(sdk_home) == [(10, {"loss": 0.5}), (10, {"acc/train": 0.9, "acc/val": 0.8})]
    (opening,) = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert opening[2]["name"] == "first"
    assert of_kind(spooled(sdk_home / "spool"), Kind.CLOSE)
    assert (tmp_path / "runs" / "first").is_dir()


def test_without_a_step_the_calls_of_each_tag_are_counted(sdk_home: Path) -> None:
    with SummaryWriter() as writer:
        for value in (1.0, 2.0):
            writer.add_scalar("a", value)
        writer.add_scalar("b", 3.0)
    assert kept(sdk_home) == [(0, {"a": 1.0}), (1, {"a": 2.0}), (0, {"b": 3.0})]


def test_what_comes_without_a_step_stands_at_the_newest_that_was_given(sdk_home: Path) -> None:
    with SummaryWriter() as writer:
        for step in (10, 20):
            writer.add_scalar("a", 1.0, step)
        writer.add_text("note", "good")
        writer.add_hparams({"lr": 0.1}, {"best": 2.0})
    assert [step for step, _ in kept(sdk_home)] == [10, 20, 20, 20]
    assert kept(sdk_home)[-1] == (20, {"best": 2.0})


def test_a_walltime_is_the_time_of_the_record(sdk_home: Path) -> None:
    with SummaryWriter() as writer:
        writer.add_scalar("a", 1.0, 5, walltime=1_700_000_000.5)
        writer.add_text("note", "hello", 6, walltime=1_700_000_001.0)
    records = [event[1:] for event in spooled(sdk_home / "spool") if event[0] == Kind.LOG]
    assert records == [
        [1_700_000_000_500_000_000, 5, {"a": 1.0}],
        [1_700_000_001_000_000_000, 6, {"note": "hello"}],
    ]


def test_histograms_are_counted_or_taken_as_counted(sdk_home: Path) -> None:
    with SummaryWriter() as writer:
        writer.add_histogram("w", np.arange(100.0), 1, bins=10)
        writer.add_histogram("w", np.arange(100.0), 2, bins="auto", max_bins=4)
        writer.add_histogram_raw("g", -1.0, 1.0, 3, 0.0, 2.0, [0.0, 1.7e308], [1, 2], 3)
    first, second, raw = (next(iter(fields.values())) for _, fields in kept(sdk_home))
    assert first["counts"] == [10] * 10
    assert second["counts"] == [25] * 4
    assert (raw["bins"], raw["counts"]) == ([-1.0, 0.0, 1.0], [1, 2])


def test_hyperparameters_are_config_and_their_metrics_are_logged(sdk_home: Path) -> None:
    with SummaryWriter() as writer:
        writer.add_hparams({"lr": 0.1}, {"hparam/accuracy": 0.9}, run_name="x")
    assert [event[2] for event in of_kind(spooled(sdk_home / "spool"), Kind.CONFIG)] == [{"lr": 0.1}]
    assert kept(sdk_home) == [(0, {"hparam/accuracy": 0.9})]


def test_what_is_left_out_says_so_once_and_costs_nothing_else(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SummaryWriter() as writer:
        for step in range(3):
            writer.add_image("sample", np.zeros((3, 2, 2)), step)
            writer.add_graph(None)
            writer.add_scalar("a", 1.0, step)
    told = capsys.readouterr().err
    assert told.count("add_image: images are not stored") == 1
    assert told.count("add_graph: graphs of a model are not stored") == 1
    assert len(kept(sdk_home)) == 3


def test_a_name_that_torchs_writer_has_not_is_missing_here_too(sdk_home: Path) -> None:
    assert not hasattr(SummaryWriter(), "add_scaler")


def test_writers_side_by_side_share_a_run_and_differ_by_their_folders(sdk_home: Path) -> None:
    train, val = SummaryWriter("runs/one/train"), SummaryWriter("runs/one/val")
    train.add_scalar("loss", 1.0, 0)
    val.add_scalar("loss", 2.0, 0)
    train.close()
    val.add_scalar("loss", 3.0, 1)
    val.close()
    assert kept(sdk_home) == [(0, {"loss": 1.0}), (0, {"val/loss": 2.0}), (1, {"val/loss": 3.0})]


def test_writers_one_after_the_other_are_runs(sdk_home: Path) -> None:
    for rate in ("0.1", "0.2"):
        with SummaryWriter(f"runs/lr-{rate}") as writer:
            writer.add_scalar("loss", 1.0, 0)
    openings = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert sorted(opening[2]["name"] for opening in openings) == ["lr-0.1", "lr-0.2"]
    assert len({opening[2]["run"] for opening in openings}) == 2


@pytest.mark.parametrize("begin", [allranks.init, lambda: allranks.init(mode="disabled")])
def test_a_run_that_the_program_began_goes_on_after_its_writer(begin: Callable[[], allranks.Run]) -> None:
    run = begin()
    with SummaryWriter("runs/a") as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert not run.is_finished
    assert _current.current() is run


def test_a_writer_pickles(sdk_home: Path) -> None:
    writer = SummaryWriter("runs/a")
    writer.add_scalar("a", 1.0)
    pickle.loads(pickle.dumps(writer)).add_scalar("a", 2.0)
    assert kept(sdk_home) == [(0, {"a": 1.0}), (1, {"a": 2.0})]


def test_the_folder_is_the_runs_own_where_none_was_named(sdk_home: Path) -> None:
    writer = SummaryWriter(comment="_lr_0.1")
    assert writer.get_logdir() == writer.log_dir == allranks.run.dir
    assert allranks.run.name == "lr_0.1"
