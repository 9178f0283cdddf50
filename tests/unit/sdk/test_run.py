"""A run in one process, without a collector: what it keeps, what it refuses, and that it never raises."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.spools import logged, of_kind, spooled
from tests.support.waiting import wait_until

import allranks
from allranks import _current
from allranks._publisher import Publisher
from allranks._run import Run
from allranks.identity import IdentityError
from allranks_bus import processes
from allranks_bus.errors import AddressError, SettingError
from allranks_bus.events import Kind
from allranks_bus.home import Endpoint, write_endpoint
from allranks_bus.spool_reader import SpoolReader


def offline(**arguments: Any) -> Run:
    return allranks.init(project="p", mode="offline", **arguments)


def test_numbers_are_kept_with_steps_that_count_by_themselves(sdk_home: Path) -> None:
    run = offline()
    for value in (1, 2.5, True):
        run.log({"loss": value, "acc": 0})
    assert logged(spooled(sdk_home / "spool")) == [
        (0, {"loss": 1.0, "acc": 0.0}),
        (1, {"loss": 2.5, "acc": 0.0}),
        (2, {"loss": 1.0, "acc": 0.0}),
    ]


def test_the_address_of_the_page_is_known_at_once_where_a_collector_runs(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = processes.current()
    write_endpoint(
        sdk_home, Endpoint("tcp://127.0.0.1:1", "http://127.0.0.1:2", me.pid, me.start, "0" * 32, "0.1.0", 1.0)
    )

    def stay(_publisher: Publisher) -> None:
        """It is still to look."""

    monkeypatch.setattr(Publisher, "start", stay)
    run = allranks.init(project="p")
    assert run.url == f"http://127.0.0.1:2/runs/{run.id}"


def test_a_given_step_is_kept_and_counted_on_from(sdk_home: Path) -> None:
    run = offline()
    run.log({"a": 1}, step=41)
    run.log({"a": 1})
    run.log({"a": 1}, np.int64(7))  # type: ignore[arg-type,unused-ignore]
    run.log({"a": 1})
    assert [step for step, _ in logged(spooled(sdk_home / "spool"))] == [41, 42, 7, 8]


def test_each_call_takes_one_step_whatever_it_holds(sdk_home: Path) -> None:
    run = offline()
    run.log({"a": 1})
    run.log({"a": None})
    run.log({"a": 1})
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0}), (2, {"a": 1.0})]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_kept(sdk_home: Path, value: float) -> None:
    run = offline()
    run.log({"loss": value})
    ((_, fields),) = logged(spooled(sdk_home / "spool"))
    assert repr(fields["loss"]) == repr(value)


def test_nested_names_are_joined_and_text_and_arrays_are_kept_beside_numbers(sdk_home: Path) -> None:
    run = offline()
    run.log({"train": {"loss": 1.0}, "note": "début", "weights": np.arange(10.0), "scalar": np.float32(2)}, 3)
    fields: dict[str, Any] = {}
    for step, part in logged(spooled(sdk_home / "spool")):
        assert step == 3
        fields |= part
    assert fields["train/loss"] == 1.0
    assert fields["scalar"] == 2.0
    assert fields["note"] == "début"
    assert fields["weights"]["_type"] == "histogram"
    assert sum(fields["weights"]["counts"]) == 10


def test_what_cannot_be_stored_is_named_once_and_costs_nothing_beside_it(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    for _ in range(3):
        run.log({"good": 1.0, "bad": object()})
    assert [fields for _, fields in logged(spooled(sdk_home / "spool"))] == [{"good": 1.0}] * 3
    assert capsys.readouterr().err.count("'bad'") == 1


@pytest.mark.parametrize("data", [None, 3, "text", [1, 2], object(), b"", {"": 1}, {1: 2}, {None: 1}, {"a": {}}])
def test_log_raises_for_nothing_that_it_is_given(sdk_home: Path, data: Any) -> None:
    run = offline()
    run.log(data)
    run.log({"after": 1.0})
    assert (logged(spooled(sdk_home / "spool"))[-1][1]) == {"after": 1.0}


class Wordless:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("mine")


@pytest.mark.parametrize("step", ["3", 1.5, object(), 2**70, 10**5000, math.nan, [1], Wordless()], ids=type)
def test_a_step_that_is_none_is_replaced_and_said(
    sdk_home: Path, step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    run.log({"a": 1.0}, step)
    assert [fields for _, fields in logged(spooled(sdk_home / "spool"))] == [{"a": 1.0}]
    assert "step must be a whole number" in capsys.readouterr().err


def test_log_under_error_warnings_raises_nothing(sdk_home: Path) -> None:
    run = offline()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log({"bad": object(), "array": np.ones(1)})
        run.log("not a dict")  # type: ignore[arg-type]


def test_a_program_that_makes_new_names_at_every_step_loses_none(sdk_home: Path) -> None:
    run = offline()
    for index in range(3000):
        run.log({f"layer/{index}": float(index)})
    fields = [fields for _, fields in logged(spooled(sdk_home / "spool"))]
    assert fields == [{f"layer/{index}": float(index)} for index in range(3000)]


def test_many_thousand_values_at_once_are_all_kept(sdk_home: Path) -> None:
    run = offline()
    data = {f"k{index}": float(index) for index in range(20_000)}
    run.log(data, 5)
    fields: dict[str, Any] = {}
    for step, part in logged(spooled(sdk_home / "spool")):
        assert step == 5
        fields |= part
    assert fields == data


def test_sixteen_threads_log_at_once_and_nothing_is_lost(sdk_home: Path) -> None:
    run = offline()

    def work(thread: int) -> None:
        for index in range(500):
            run.log({"thread": thread, "index": index})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = logged(spooled(sdk_home / "spool"))
    assert sorted(step for step, _ in found) == list(range(8000))
    for number in range(16):
        mine = [fields["index"] for _, fields in found if fields["thread"] == number]
        assert mine == list(range(500))


def test_config_summary_and_definitions_are_events(sdk_home: Path) -> None:
    run = offline(config=argparse.Namespace(lr=0.1, sizes=(1, 2), path=Path("x")))
    run.config["seed"] = 3
    run.summary["best"] = 0.9
    run.define_metric("val/*", step_metric="epoch", summary="max")
    found = spooled(sdk_home / "spool")
    assert [event[2] for event in of_kind(found, Kind.CONFIG)] == [
        {"lr": 0.1, "sizes": [1, 2], "path": "x"},
        {"seed": 3},
    ]
    assert of_kind(found, Kind.SUMMARY)[0][2] == {"best": 0.9}
    assert of_kind(found, Kind.DEFINE)[0][2:] == ["val/*", {"step_metric": "epoch", "summary": "max"}]


def test_the_first_record_says_who_writes(sdk_home: Path) -> None:
    run = allranks.init(project="p", group="g", name="n", tags=["a"], mode="offline", rank=2, world_size=4)
    opening = spooled(sdk_home / "spool")[0]
    assert opening[0] == Kind.OPEN
    identity = opening[2]
    assert (identity["run"], identity["rank"], identity["world_size"]) == (run.id, 2, 4)
    assert (identity["project"], identity["group"], identity["name"], identity["tags"]) == ("p", "g", "n", ["a"])
    assert identity["destination"] == "offline"


def test_finish_closes_offline_and_says_where_the_events_are(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    run.log({"a": 1.0})
    run.finish(exit_code=3)
    found = spooled(sdk_home / "spool")
    assert found[-1][0] == Kind.CLOSE
    assert found[-1][2] == {"exit_code": 3}
    assert "allranks sync" in capsys.readouterr().err


def test_finish_says_that_all_went_well_but_for_an_exception_that_is_on_its_way(sdk_home: Path) -> None:
    offline().finish()
    run = offline()
    with pytest.raises(ZeroDivisionError):
        try:
            _ = 1 / 0
        finally:
            run.finish()
    ends = [event[2] for event in of_kind(spooled(sdk_home / "spool"), Kind.CLOSE)]
    assert sorted(map(repr, ends)) == ["{'exit_code': 0}", "{'exit_code': None}"]


def test_log_after_finish_is_said_once_and_breaks_nothing(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = offline()
    run.finish()
    capsys.readouterr()
    run.log({"a": 1.0})
    run.log({"a": 1.0})
    run.finish()
    assert capsys.readouterr().err.count("has ended") == 1
    assert logged(spooled(sdk_home / "spool")) == []


@pytest.mark.parametrize(
    ("given", "stored"), [(True, 1), (2**70, 1), ("failed", 1), ("", 0), (-9, -9), (np.int64(3), 3)]
)
def test_an_exit_code_of_any_type_ends_a_run(sdk_home: Path, given: Any, stored: int) -> None:
    offline().finish(given, timeout=None)
    assert spooled(sdk_home / "spool")[-1][2] == {"exit_code": stored}


def test_a_job_that_may_start_no_thread_keeps_its_events_and_is_told_so(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    run = offline(config={"lr": 1})
    run.log({"a": 1.0})
    run.finish()
    found = spooled(sdk_home / "spool")
    assert logged(found) == [(0, {"a": 1.0})]
    assert [event[2] for event in of_kind(found, Kind.CONFIG)] == [{"lr": 1}]
    assert "can't start new thread" in capsys.readouterr().err


def test_a_step_that_is_too_large_is_told_as_that(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offline().log({"a": 1.0}, step=2**64)
    assert "beyond 64 bits" in capsys.readouterr().err


def test_save_of_what_is_no_path_is_said_and_raises_nothing(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    assert run.save(None) == run.save(["a.pt"]) == run.save(b"a.pt") == []  # type: ignore[arg-type]
    assert "save(None)" in capsys.readouterr().err


def test_init_twice_gives_the_same_run(sdk_home: Path) -> None:
    run = offline()
    assert allranks.init(project="p", mode="offline") is run


@pytest.mark.parametrize("told", [{"project": "q"}, {"group": "g"}, {"name": "n"}, {"id": "another"}])
def test_init_for_another_run_says_that_this_one_goes_on(
    told: dict[str, str], sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = offline()
    assert allranks.init(project="p", config={"a": 1}) is run
    assert capsys.readouterr().err == ""
    assert allranks.init(**told, config={"a": 2}) is run  # type: ignore[arg-type]
    assert f"the run {run.id} goes on" in capsys.readouterr().err


def test_init_after_finish_begins_another_run(sdk_home: Path) -> None:
    first = offline()
    first.finish()
    second = offline()
    assert second is not first
    assert second.id != first.id


def test_disabled_keeps_nothing_and_still_answers(sdk_home: Path) -> None:
    run = allranks.init(mode="disabled", config={"lr": 1})
    run.log({"a": 1.0})
    run.define_metric("a")
    run.summary["x"] = 1
    assert run.config.lr == 1
    assert run.status()["logged"] == 0
    run.finish()
    assert not (sdk_home / "spool").exists()


def test_the_context_manager_records_the_exception_that_leaves_it(sdk_home: Path) -> None:
    with pytest.raises(ZeroDivisionError), offline() as run:
        run.log({"a": 1.0})
        _ = 1 / 0
    end = spooled(sdk_home / "spool")[-1]
    assert end[0] == Kind.CLOSE
    assert end[2]["exit_code"] == 1
    assert end[2]["exception"]["type"] == "ZeroDivisionError"
    assert "1 / 0" in end[2]["exception"]["traceback"]


@pytest.mark.parametrize(("code", "end"), [(0, 0), (None, 0), (5, 5), ("a message", 1)])
def test_a_program_that_exits_within_the_context_manager_ends_with_its_exit_code(
    sdk_home: Path, code: Any, end: int
) -> None:
    with pytest.raises(SystemExit), offline():
        sys.exit(code)
    assert spooled(sdk_home / "spool")[-1][2] == {"exit_code": end}


def test_what_a_run_is_called_may_be_of_any_type_and_its_tags_may_be_one_or_none(sdk_home: Path) -> None:
    run = allranks.init(5, id=7, name=3, group=("a", 1), notes=2.5, tags=None, dir=sdk_home / "d", mode="offline")  # type: ignore[arg-type]
    run.finish()
    allranks.init(mode="offline", tags="one").finish()
    told = {event[2]["run"]: event[2] for event in of_kind(spooled(sdk_home / "spool"), Kind.OPEN)}
    seven = told.pop("7")
    assert [seven[key] for key in ("project", "name", "group", "notes", "tags")] == ["5", "3", "('a', 1)", "2.5", []]
    assert [other["tags"] for other in told.values()] == [["one"]]


def test_what_is_too_long_to_be_said_of_a_run_is_cut_and_costs_nothing_else(sdk_home: Path) -> None:
    long = "x" * 5_000_000
    run = allranks.init(long, name=long, group=long, notes=long, tags=[long] * 300, mode="offline")
    run.log({"a": 1.0})
    found = spooled(sdk_home / "spool")
    (opening,) = of_kind(found, Kind.OPEN)
    assert {len(opening[2][key]) for key in ("project", "name", "group")} == {1024}
    assert len(opening[2]["notes"]) == 64 * 1024
    assert logged(found) == [(0, {"a": 1.0})]


def test_of_a_configuration_that_is_too_large_only_what_is_too_large_alone_is_left_out(
    sdk_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {f"text{number}": "y" * 60_000 for number in range(100)}
    offline(config={**texts, "numbers": list(range(2**30, 2**30 + 1_000_000)), "lr": 0.1})
    kept: dict[str, Any] = {}
    for event in of_kind(spooled(sdk_home / "spool"), Kind.CONFIG):
        kept |= event[2]
    assert kept == {**texts, "lr": 0.1}
    assert "config 'numbers' could not be kept" in capsys.readouterr().err


def test_a_dataclass_with_slots_is_a_configuration(sdk_home: Path) -> None:
    @dataclasses.dataclass(slots=True)
    class Options:
        lr: float = 0.1

    assert dict(offline(config=Options()).config) == {"lr": 0.1}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"config": 5}, SettingError, "a mapping or"),
        ({"config": [1, 2]}, SettingError, "a mapping or"),
        ({"dir": 5}, SettingError, "a path"),
        ({"mode": "onlin"}, SettingError, "one of online, offline, disabled"),
        ({"url": "localhost:5571"}, AddressError, "it has no scheme"),
        ({"url": "http://x:1"}, AddressError, "'http' is no transport"),
        ({"id": "a b"}, IdentityError, "letters, digits"),
        ({"rank": -1}, IdentityError, "a whole number"),
        ({"resume": "maybe"}, SettingError, "allow or never"),
    ],
)
def test_an_argument_that_can_never_be_right_is_a_clear_error(
    sdk_home: Path, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        allranks.init(**arguments)
    assert "\n" not in str(caught.value)
    assert _current.current() is None


def test_a_wrong_url_in_the_environment_warns_once_and_keeps_everything(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALLRANKS_URL", "collector:5571")
    run = allranks.init(project="p")
    run.log({"a": 1.0})
    assert capsys.readouterr().err.count("ALLRANKS_URL") == 1
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0})]


def test_a_wrong_mode_in_the_environment_warns_and_is_passed_over(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALLRANKS_MODE", "of")
    monkeypatch.setenv("ALLRANKS_URL", f"ipc://{sdk_home}/nobody")
    run = allranks.init(project="p")
    assert run.settings.mode == "online"
    assert "ALLRANKS_MODE" in capsys.readouterr().err


def test_the_module_speaks_for_the_current_run(sdk_home: Path) -> None:
    assert allranks.status() == {}
    run = offline(config={"lr": 1})
    assert allranks.run is run
    assert allranks.config.lr == 1
    assert allranks.summary is run.summary
    allranks.log({"a": 1.0})
    allranks.define_metric("a", summary="max")
    assert allranks.status()["logged"] == 5
    allranks.finish()
    assert run.status()["finished"]


def test_the_module_before_init_warns_and_never_raises(sdk_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allranks.log({"a": 1})
    allranks.define_metric("a")
    allranks.finish()
    assert "before init()" in capsys.readouterr().err
    assert not (sdk_home / "spool").exists()


def test_the_run_is_known_before_init_and_is_the_one_that_init_starts(sdk_home: Path) -> None:
    early, directory = allranks.run, allranks.run.dir
    early.config["seed"] = 3
    assert Path(directory).is_dir()
    assert not early.is_started
    run = offline(name="n", config={"lr": 0.1})
    assert run is early is allranks.run
    assert (run.dir, run.project, run.name) == (directory, "p", "n")
    events = spooled(sdk_home / "spool")
    assert [opened[2]["run"] for opened in of_kind(events, Kind.OPEN)] == [Path(directory).name]
    assert [change[2] for change in of_kind(events, Kind.CONFIG)] == [{"seed": 3}, {"lr": 0.1}]


def test_a_rank_that_never_calls_init_joins_its_launchs_run_by_logging(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "ALLRANKS_RUN_ID": "ours",
        "ALLRANKS_MODE": "offline",
    }.items():
        monkeypatch.setenv(name, value)
    assert Path(allranks.run.dir) == sdk_home / "runs" / "ours"
    assert not allranks.run.is_started
    allranks.log({"loss": 1})
    allranks.config["lr"] = 1
    ((_, _, opened),) = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert (opened["run"], opened["rank"], opened["implied"]) == ("ours", 1, True)
    run = allranks.init(project="p")
    assert run is allranks.run
    assert run.rank == 1
    (_, _, _), (_, _, again) = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert again["project"] == "p"
    assert "implied" not in again


def test_what_is_told_of_a_run_before_init_holds_when_init_tells_nothing(sdk_home: Path) -> None:
    early = allranks.run
    told = _current.imply(project="p", name="n", dir=str(sdk_home / "mine"), tags=["a"], notes="why")
    run = allranks.init(mode="offline")
    assert run is told is early
    assert (run.project, run.name, run.tags, run.notes) == ("p", "n", ("a",), "why")
    assert Path(run.dir).parent == sdk_home / "mine"


def test_a_run_that_is_implied_with_an_id_is_that_which_init_starts(sdk_home: Path) -> None:
    early = allranks.run
    told = _current.imply(id="mine")
    assert told.id == "mine" != early.id
    assert offline() is told


def test_after_finish_the_next_implied_run_is_another(sdk_home: Path) -> None:
    first = _current.imply()
    allranks.finish()
    second = _current.imply()
    assert second.id != first.id
    assert offline() is second


@pytest.mark.parametrize("is_implied", [False, True])
def test_a_rank_finds_its_further_run_whether_or_not_it_asks_before_init(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, is_implied: bool
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "ALLRANKS_RUN_ID": "", "ALLRANKS_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    offline().finish()
    wanted = _further_run()
    if is_implied:
        _current.imply(name="n")
    run = offline()
    assert (run.id, run.identity.launch) == wanted


def _further_run() -> tuple[str, str]:
    """The run and launch that a rank of this process's place begins after its first one."""
    from allranks.identity import identify

    who, _ = identify(turn=1)
    return who.run, who.launch


def test_init_with_an_id_after_the_run_was_asked_for_is_that_run(sdk_home: Path) -> None:
    early = allranks.run
    assert offline(id="mine").id == "mine" == allranks.run.id != early.id


def test_run_dir_is_made_and_named_by_the_run(sdk_home: Path, tmp_path: Path) -> None:
    run = offline()
    assert Path(run.dir) == sdk_home / "runs" / run.id
    assert Path(run.dir).is_dir()


def test_the_spool_goes_elsewhere_where_the_first_place_cannot_be_written(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sdk_home / "spool").write_text("a file in the way")
    run = offline()
    run.log({"a": 1.0})
    directory = Path(str(run.status()["spool"]))
    assert sdk_home not in directory.parents
    run.finish()
    reader = SpoolReader(directory)
    assert reader.end > 0
    reader.remove()


def test_nowhere_to_spool_is_said_once_and_training_goes_on(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (sdk_home / "file").write_text("")
    monkeypatch.setenv("ALLRANKS_SPOOL", str(sdk_home / "file"))
    run = offline()
    run.log({"a": 1.0})
    run.log({"a": 1.0})
    run.finish()
    assert capsys.readouterr().err.count("nothing can be kept") == 1


def test_a_config_pickles_and_answers_by_key_and_attribute(sdk_home: Path) -> None:
    run = offline(config={"lr": 0.1, "net": {"width": 3}})
    copy = pickle.loads(pickle.dumps(argparse.Namespace(config=run.config))).config
    assert copy["lr"] == copy.lr == 0.1
    assert copy.net == {"width": 3}
    copy["lr"] = 2
    assert run.config.lr == 0.1


def test_a_config_entry_changes_only_when_that_is_said(sdk_home: Path) -> None:
    run = offline(config={"lr": 0.1})
    with pytest.raises(ValueError, match="allow_val_change=True"):
        run.config.update({"lr": 0.2, "new": 1})
    assert "new" not in run.config
    run.config.update({"lr": 0.2}, allow_val_change=True)
    assert run.config["lr"] == 0.2
    with pytest.raises(AttributeError, match="no 'lrr' here"):
        _ = run.config.lrr


EXCEPTION_PROGRAM = """
import allranks
run = allranks.init(project="p", mode="offline")
run.log({"a": 1.0})
raise RuntimeError("the loss is a teapot")
"""


def test_an_exception_that_ends_the_program_is_recorded_and_still_printed(sdk_home: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", EXCEPTION_PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "RuntimeError: the loss is a teapot" in result.stderr
    end = spooled(sdk_home / "spool")[-1]
    assert end[0] == Kind.CLOSE
    assert end[2]["exception"]["message"] == "the loss is a teapot"


def test_a_finished_run_is_not_passed_on_to_processes_started_later(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = offline()
    assert os.environ["ALLRANKS_PARENT_RUN"].startswith(f"{run.id}:")
    run.finish()
    assert "ALLRANKS_PARENT_RUN" not in os.environ


UNGUARDED_PROGRAM = """
import multiprocessing, os
import allranks

run = allranks.init(project="p", mode="offline")

def work(rank):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    mine = allranks.init(project="p", mode="offline")
    mine.log({"rank": rank})
    mine.finish()

if multiprocessing.current_process().name == "MainProcess":
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


def test_a_spawned_child_that_reran_main_becomes_the_rank_that_it_is_spawned_for(sdk_home: Path) -> None:
    program = sdk_home / "train.py"
    program.write_text(UNGUARDED_PROGRAM)
    subprocess.run([sys.executable, str(program)], check=True, timeout=60)
    openings = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert len({identity["run"] for _, _, identity in openings}) == 1
    ranks = sorted(identity["rank"] for _, _, identity in openings if identity["world_size"] == 2)
    assert ranks == [0, 1]


def test_status_after_finish_tells_how_it_ended(sdk_home: Path) -> None:
    run = offline()
    run.log({"a": 1.0})
    run.finish()
    status = run.status()
    assert status["finished"]
    assert status["logged"] == 4  # OPEN, KEYSET, METRICS, CLOSE
    assert Path(status["spool"]).is_dir()


SANDBOXED_PROGRAM = """
import os
def denied(*arguments):
    raise PermissionError
os.sched_setscheduler = denied
import allranks
run = allranks.init(project="p")
run.log({"a": 1.0})
run.finish(timeout=20)
"""


def test_a_sandbox_that_would_make_zeromq_abort_only_keeps_events_in_the_spool(sdk_home: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SANDBOXED_PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert "sched_setscheduler" in result.stderr
    assert logged(spooled(sdk_home / "spool")) == [(0, {"a": 1.0})]


def test_a_loss_that_carries_a_gradient_is_logged_without_a_word(sdk_home: Path) -> None:
    run = offline()
    weight = torch.ones(3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            run.log({"loss": (weight * step).sum(), "lr": 0.1}, step)
    found = [(step, fields) for step, fields in logged(spooled(sdk_home / "spool"))]
    assert found == [(step, {"loss": 3.0 * step, "lr": 0.1}) for step in range(3)]


def test_a_tensor_library_that_is_loaded_later_is_noticed(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax", "tensorflow", "cupy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    run = offline()
    log = run._log  # pyright: ignore[reportPrivateUsage]
    assert log is not None
    assert not log.may_meet_tensors
    monkeypatch.setitem(sys.modules, "jax", sys)
    log.look_for_tensors()
    assert log.may_meet_tensors


def test_the_system_is_watched_offline_too(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allranks._publisher.SAMPLE_S", 0.05)
    offline()
    wait_until(lambda: bool(of_kind(spooled(sdk_home / "spool"), Kind.SYSTEM)), "figures of the system are kept")
