"""wandb's interface: the table of what is here holds, names are accepted, and what is left out costs nothing else."""

from __future__ import annotations

import argparse
import inspect
import os
import pickle
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.spools import logged, of_kind, spooled

import allranks
import allranks.compat.wandb as wandb
from allranks.compat.wandb import _current
from allranks.compat.wandb._table import FUNCTIONS, INIT_ARGUMENTS, Fate, Row, names_of
from allranks_bus.events import Kind

MIGRATING = Path(__file__).parents[3] / "docs" / "migrating.md"

# The parameters of wandb 0.31's functions, in their order; where a name had others before, those too.
PARAMETERS = {
    "init": (
        *("entity", "project", "dir", "id", "name", "notes", "tags", "config", "config_exclude_keys"),
        *("config_include_keys", "allow_val_change", "group", "job_type", "mode", "force", "reinit", "resume"),
        *("resume_from", "fork_from", "save_code", "tensorboard", "sync_tensorboard", "monitor_gym", "settings"),
        "anonymous",
    ),
    "log": ("data", "step", "commit", "sync"),
    "finish": ("exit_code", "quiet"),
    "define_metric": ("name", "step_metric", "step_sync", "hidden", "summary", "overwrite", "goal"),
    "save": ("glob_str", "base_path", "policy", "glob"),
    "watch": ("models", "criterion", "log", "log_freq", "idx", "log_graph"),
    "unwatch": ("models",),
    "alert": ("title", "text", "level", "wait_duration"),
    "restore": ("name", "run_path", "replace", "root"),
    "log_artifact": ("artifact_or_path", "name", "type", "aliases", "tags"),
    "log_model": ("path", "name", "aliases"),
    "setup": ("settings",),
    "termlog": ("string", "newline", "repeat", "prefix"),
    "termwarn": ("string", "newline", "repeat", "prefix"),
    "termerror": ("string", "newline", "repeat", "prefix"),
    "Histogram": ("sequence", "np_histogram", "num_bins"),
    "teardown": ("exit_code",),
}
# Of `wandb.Run`, as far as a training uses it.
ATTRIBUTES = (
    *("alert", "config", "define_metric", "dir", "disabled", "entity", "finish", "group", "id", "job_type"),
    *("link_artifact", "link_model", "log", "log_artifact", "log_code", "log_model", "mark_preempting", "name"),
    *("notes", "offline", "path", "project", "restore", "resumed", "save", "settings", "start_time"),
    *("starting_step", "status", "step", "summary", "sweep_id", "sweep_url", "tags", "unwatch", "url"),
    *("use_artifact", "use_model", "watch", "get_url", "display"),
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, sdk_home: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALLRANKS_MODE", "offline")
    monkeypatch.setattr(_current, "_run", None)
    monkeypatch.setattr(_current, "_defaults", {})


def kept(home: Path) -> list[tuple[int, dict[str, Any]]]:
    return logged(spooled(home / "spool"))


def opening(home: Path) -> dict[str, Any]:
    """What the run says of itself, at last."""
    said: dict[str, Any] = of_kind(spooled(home / "spool"), Kind.OPEN)[-1][2]
    return said


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_function_takes_wandbs_arguments_in_their_order(name: str) -> None:
    assert tuple(inspect.signature(getattr(wandb, name)).parameters) == PARAMETERS[name]


def test_each_argument_of_init_has_a_line_in_the_table() -> None:
    assert sorted(name for row in INIT_ARGUMENTS for name in row.names) == sorted(PARAMETERS["init"])


def test_each_name_of_the_table_is_there() -> None:
    missing: list[str] = []
    for row in FUNCTIONS:
        for name in row.names:
            thing: Any = wandb
            for part in name.split("."):
                thing = getattr(thing, part, missing)
            if thing is missing:
                missing.append(name)
    assert missing == []


def test_a_name_that_is_nowhere_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(AttributeError, match=r"no 'kears'.*migrating"):
        wandb.kears  # noqa: B018


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_run_has_what_wandbs_has(name: str) -> None:
    run = wandb.init()
    getattr(run, name)


def test_the_page_for_migrating_shows_the_table() -> None:
    text = MIGRATING.read_text()

    def lines(rows: tuple[Row, ...]) -> str:
        return "\n".join(
            f"| {', '.join(f'`{name}`' for name in row.names)} | {row.fate.value} | {row.words} |" for row in rows
        )

    assert lines(INIT_ARGUMENTS) in text
    assert lines(FUNCTIONS) in text


# -- init ----------------------------------------------------------------------------------------------------------


def test_there_is_no_run_before_init_and_none_after_finish() -> None:
    runs = [wandb.run]
    run = wandb.init()
    runs.append(wandb.run)
    wandb.finish()
    runs.append(wandb.run)
    assert runs == [None, run, None]


def test_what_init_is_told_reaches_the_run(sdk_home: Path) -> None:
    with wandb.init(project="p", name="n", group="g", notes="why", tags=["a"], job_type="train", id="my run") as run:
        assert (run.project, run.name, run.group, run.job_type, run.id) == ("p", "n", "g", "train", "my-run")
        assert run.path == "p/my-run"
    said = opening(sdk_home)
    assert (said["project"], said["name"], said["group"], said["notes"]) == ("p", "n", "g", "why")
    assert said["tags"] == ["a", "train"]


def test_what_has_no_meaning_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    wandb.init(
        entity="team", save_code=True, monitor_gym=False, settings=wandb.Settings(start_method="fork", mode="offline")
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert "wandb.init(entity, save_code, settings.start_method) is left out" in line


ENVIRONMENT = [
    ({"WANDB_PROJECT": "w"}, {}, "project", "w"),
    ({"WANDB_PROJECT": "w", "ALLRANKS_PROJECT": "a"}, {}, "project", "a"),
    ({"WANDB_PROJECT": "w", "ALLRANKS_PROJECT": "a"}, {"project": "given"}, "project", "given"),
    ({"WANDB_PROJECT": "w"}, {"settings": wandb.Settings(project="s")}, "project", "s"),
    ({"WANDB_PROJECT": "w"}, {"settings": {"project": "s"}, "project": "given"}, "project", "given"),
    ({"WANDB_NAME": "w"}, {}, "name", "w"),
    ({"WANDB_RUN_GROUP": "w"}, {}, "group", "w"),
    ({"WANDB_RUN_ID": "w"}, {}, "id", "w"),
    ({"WANDB_RUN_ID": "w", "ALLRANKS_RUN_ID": "a"}, {}, "id", "a"),
    ({"WANDB_TAGS": "x, y"}, {}, "tags", ("x", "y")),
    ({"WANDB_NOTES": "w"}, {}, "notes", "w"),
    ({"WANDB_JOB_TYPE": "w"}, {}, "job_type", "w"),
    ({"ALLRANKS_MODE": "", "WANDB_MODE": "dryrun"}, {}, "offline", True),
    ({"ALLRANKS_MODE": "", "WANDB_MODE": "disabled"}, {}, "disabled", True),
    ({"ALLRANKS_MODE": "", "WANDB_DISABLED": "true"}, {}, "disabled", True),
    ({"WANDB_DISABLED": "true"}, {}, "disabled", False),
    ({"WANDB_DISABLED": "true"}, {"mode": "offline"}, "disabled", False),
    ({}, {"mode": "disabled"}, "disabled", True),
]


@pytest.mark.parametrize(("env", "arguments", "attribute", "value"), ENVIRONMENT)
def test_arguments_come_before_settings_and_these_before_the_environment(
    env: dict[str, str], arguments: dict[str, Any], attribute: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in env.items():
        monkeypatch.setenv(name, text)
    assert getattr(wandb.init(**arguments), attribute) == value


def test_setup_keeps_settings_for_later_runs() -> None:
    wandb.setup(wandb.Settings(project="s"))
    assert wandb.init().project == "s"


CONFIGS = [
    ({"lr": 1, "bs": 2}, {}, {"lr": 1, "bs": 2}),
    (argparse.Namespace(lr=1, bs=2), {}, {"lr": 1, "bs": 2}),
    ({"lr": 1, "bs": 2}, {"config_exclude_keys": ["bs"]}, {"lr": 1}),
    ({"lr": 1, "bs": 2}, {"config_include_keys": ["bs"]}, {"bs": 2}),
    (None, {}, {}),
    ("config.yaml", {}, {}),
]


@pytest.mark.parametrize(("config", "arguments", "entries"), CONFIGS)
def test_the_config_that_a_run_is_started_with(config: Any, arguments: Any, entries: dict[str, int]) -> None:
    wandb.init(config=config, **arguments)
    assert dict(wandb.config) == entries


def test_init_again_gives_the_run_back(capsys: pytest.CaptureFixture[str]) -> None:
    run = wandb.init(config={"lr": 1})
    assert wandb.init(config={"lr": 2}, name="another") is run
    assert wandb.config.lr == 2
    assert "goes on" in capsys.readouterr().err


@pytest.mark.parametrize("reinit", [True, "finish_previous", "create_new"])
def test_init_again_with_reinit_begins_another_run(reinit: Any) -> None:
    first = wandb.init()
    second = wandb.init(reinit=reinit)
    assert first.is_finished
    assert (second.id != first.id, wandb.run) == (True, second)


def test_a_run_that_allranks_began_is_taken(sdk_home: Path) -> None:
    ours = allranks.init(project="p")
    wandb.init()
    wandb.log({"a": 1})
    ours.log({"a": 2})
    assert kept(sdk_home) == [(0, {"a": 1.0}), (1, {"a": 2.0})]


# -- log -----------------------------------------------------------------------------------------------------------

LOGS: list[tuple[list[dict[str, Any]], list[int], int]] = [
    ([{}, {}, {}], [0, 1, 2], 3),
    ([{"commit": False}, {"commit": False}, {}, {}], [0, 0, 0, 1], 2),
    ([{"step": 5}, {"step": 5}, {"step": 6}], [5, 5, 6], 6),
    ([{"step": 5}, {}, {}], [5, 5, 6], 7),
    ([{"step": 5, "commit": True}, {}], [5, 6], 7),
    ([{"step": 5}, {"step": 3}, {}], [5, 3, 5], 6),
    ([{"step": np.int64(4)}, {"step": 4.0}, {"step": "x"}], [4, 4, 4], 4),
]


@pytest.mark.parametrize(("calls", "steps", "following"), LOGS)
def test_step_and_commit_choose_the_step(
    calls: list[dict[str, Any]], steps: list[int], following: int, sdk_home: Path
) -> None:
    run = wandb.init()
    for number, call in enumerate(calls):
        wandb.log({"i": number}, **call)
    assert kept(sdk_home) == [(step, {"i": float(number)}) for number, step in enumerate(steps)]
    assert run.step == following


def test_what_is_left_out_does_not_cost_what_is_beside_it(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb.init()
    table = wandb.Table(columns=["a", "b"], data=[[1, 2]])
    table.add_data(3, 4)
    table.add_column("c", [5, 6])
    for _ in range(2):
        wandb.log({"loss": 1, "sample": wandb.Image(np.zeros((2, 2))), "many": [wandb.Image(1), wandb.Image(2)]})
        wandb.log({"eval": {"acc": 0.5, "page": wandb.Html("<p>")}, "table": table})
    wandb.log({"pr": wandb.plot.pr_curve([1], [1]), "cloud": wandb.Object3D.from_numpy(1), "loss": 2})
    assert [fields for _, fields in kept(sdk_home)] == [*([{"loss": 1.0}, {"eval/acc": 0.5}] * 2), {"loss": 2.0}]
    told = re.findall(r"wandb\.(\S+) is left out", capsys.readouterr().err)
    assert sorted(told) == ["Html", "Image", "Object3D", "Table", "plot.pr_curve"]
    assert (table.get_column("c"), table.data) == ([5, 6], [[1, 2, 5], [3, 4, 6]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: wandb.Histogram([1.0, 2.0, 3.0], num_bins=4),
        lambda: wandb.Histogram(np_histogram=np.histogram([1.0, 2.0, 3.0], bins=4)),
    ],
)
def test_a_histogram_is_stored_as_one(make: Callable[[], Any], sdk_home: Path) -> None:
    wandb.init()
    wandb.log({"w": make()})
    ((_, fields),) = kept(sdk_home)
    assert fields["w"]["counts"] == [1, 0, 1, 1]


def test_odd_data_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no items")

    wandb.init()
    wandb.Image(1)  # from here on, what is logged is looked through
    for data in (None, [1], Odd(a=1), {"a": object()}, {1: 2}):
        wandb.log(data)  # type: ignore[arg-type]


def test_without_a_run_a_call_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    wandb.log({"a": 1})
    wandb.log({"a": 1})
    assert capsys.readouterr().err.count("wandb.log() was called and no run is there") == 1


# -- config, summary, definitions ------------------------------------------------------------------------------------


def test_changes_of_config_and_summary_are_stored(sdk_home: Path) -> None:
    run = wandb.init(config={"lr": 1})
    wandb.config.update({"bs": 2})
    wandb.config.update({"lr": 3}, allow_val_change=True)
    wandb.config.epochs = 4
    wandb.config["seed"] = 5
    wandb.config.setdefaults({"lr": 6, "wd": 7})
    run.summary["best"] = 0.9
    wandb.summary.update({"note": "ok"})
    found = spooled(sdk_home / "spool")
    settings = [event[2] for event in of_kind(found, Kind.CONFIG)]
    assert settings == [{"lr": 1}, {"bs": 2}, {"lr": 3}, {"epochs": 4}, {"seed": 5}, {"wd": 7}]
    assert [event[2] for event in of_kind(found, Kind.SUMMARY)] == [{"best": 0.9}, {"note": "ok"}]
    assert wandb.config.as_dict() == {"lr": 3, "bs": 2, "epochs": 4, "seed": 5, "wd": 7}


def test_the_summary_reads_what_was_set_else_what_was_logged_last() -> None:
    wandb.init()
    wandb.log({"loss": 2.0, "acc": np.float32(0.5)})
    wandb.log({"loss": 1.0})
    wandb.summary["acc_best"] = 0.7
    assert (wandb.summary["loss"], wandb.summary.acc, wandb.summary["acc_best"]) == (1.0, 0.5, 0.7)
    assert wandb.summary.get("none", "nothing") == "nothing"
    assert sorted(wandb.summary) == ["acc", "acc_best", "loss"]


def test_config_and_summary_before_init_say_what_is_missing() -> None:
    with pytest.raises(wandb.UsageError, match=r"wandb\.config\.lr: call wandb\.init\(\) first"):
        wandb.config.lr  # noqa: B018
    with pytest.raises(wandb.Error, match=r"wandb\.summary"):
        wandb.summary["a"] = 1


SUMMARIES = [
    ({}, {}),
    ({"summary": "min"}, {"summary": "min"}),
    ({"summary": "max,min,last"}, {"summary": "max"}),
    ({"summary": "best", "goal": "maximize"}, {"summary": "max"}),
    ({"summary": "copy"}, {}),
    ({"step_metric": "epoch", "hidden": True, "step_sync": True}, {"step_metric": "epoch"}),
]


@pytest.mark.parametrize(("arguments", "how"), SUMMARIES)
def test_define_metric_knows_wandbs_words(arguments: Any, how: dict[str, str], sdk_home: Path) -> None:
    wandb.init()
    wandb.define_metric("val/*", **arguments)
    (event,) = of_kind(spooled(sdk_home / "spool"), Kind.DEFINE)
    assert event[2:] == ["val/*", how]


def test_a_metric_is_a_step_metric_of_others(sdk_home: Path) -> None:
    wandb.init()
    epoch = wandb.define_metric("epoch")
    wandb.define_metric("val/loss", step_metric=epoch)
    assert of_kind(spooled(sdk_home / "spool"), Kind.DEFINE)[-1][3] == {"step_metric": "epoch"}


# -- alerts, names, pickles ------------------------------------------------------------------------------------------


def test_an_alert_is_stored_once_per_wait_duration_and_title(sdk_home: Path) -> None:
    wandb.init()
    for _ in range(2):
        wandb.alert("low", "accuracy is low", level=wandb.AlertLevel.WARN, wait_duration=timedelta(minutes=5))
        wandb.alert(title="now", text="each time", wait_duration=0)
    told = [event[2] for event in of_kind(spooled(sdk_home / "spool"), Kind.ALERT)]
    assert [(body["title"], body["level"]) for body in told] == [("low", "WARN"), ("now", "INFO"), ("now", "INFO")]


def test_a_run_is_renamed(sdk_home: Path) -> None:
    run = wandb.init(name="a", tags=["x"])
    run.name = "b"
    run.tags += ("y",)
    run.notes = "n"
    said = opening(sdk_home)
    assert (said["name"], said["tags"], said["notes"]) == ("b", ["x", "y"], "n")
    assert (run.name, run.tags, run.notes) == ("b", ("x", "y"), "n")


def test_run_config_and_what_holds_them_pickle(sdk_home: Path) -> None:
    run = wandb.init(config={"lr": 0.1})
    args = argparse.Namespace(config=wandb.config, run=run, hist=wandb.Histogram([1, 2]), image=wandb.Image(1))
    copy = pickle.loads(pickle.dumps(args))
    assert (copy.config["lr"], copy.config.lr, copy.run.config.lr, copy.run.id) == (0.1, 0.1, 0.1, run.id)
    copy.run.log({"a": 1})
    copy.run.config["b"] = 2
    assert kept(sdk_home) == [(0, {"a": 1.0})]
    assert allranks.config.b == 2


# -- what is refused, and what means nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("name", names_of(FUNCTIONS, Fate.REFUSED))
def test_what_a_script_cannot_go_on_without_is_a_clear_error(name: str) -> None:
    wandb.init()
    with pytest.raises(wandb.Error, match=name):
        getattr(wandb, name)("x")


@pytest.mark.parametrize("name", [*names_of(FUNCTIONS, Fate.ACCEPTED)])
def test_what_means_nothing_here_is_accepted(name: str) -> None:
    wandb.init()
    getattr(wandb, name)()


def test_words_for_people_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        wandb.termlog("a", repeat=False)
        wandb.termwarn("b")
    assert re.findall("allranks: (.)", capsys.readouterr().err) == ["a", "b", "b"]


def test_an_id_is_eight_digits_and_letters() -> None:
    assert re.fullmatch("[0-9a-z]{8}", wandb.util.generate_id())
    assert wandb.util.generate_id() != wandb.util.generate_id()


def test_a_file_of_the_run_is_restored(capsys: pytest.CaptureFixture[str]) -> None:
    run = wandb.init()
    (Path(run.dir) / "model.txt").write_text("weights")
    file = wandb.restore("model.txt")
    assert file is not None
    with file:
        assert file.read() == "weights"
    assert wandb.restore("none.txt") is None
    assert "restore('none.txt')" in capsys.readouterr().err
