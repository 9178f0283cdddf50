"""`demo`: how it ends and what it reports, with a script in the training's place and a collector that is made up."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from allranks_collector import cli
from allranks_collector.cli import demo

if TYPE_CHECKING:
    from collections.abc import Mapping


class Collector:
    """A collector that knows one run, whose ranks are in the states given."""

    states: tuple[str, ...] = ("finished", "finished")
    name = ""
    find = True

    def __init__(self, _url: str) -> None:
        pass

    def runs(self, **_filters: object) -> list[dict[str, Any]]:
        return [{"id": "other", "name": "other"}, *([self.run("x")] if self.find else [])]

    def run(self, _reference: str) -> dict[str, Any]:
        return {
            "id": "x",
            "name": self.name,
            "project": "demo",
            "state": "finished",
            "last_step": 9,
            "created_at": 1.0,
        }

    def ranks(self, _reference: str) -> list[dict[str, Any]]:
        return [
            {"rank": n, "state": state, "host": "h", "pid": n, "last_step": 9} for n, state in enumerate(self.states)
        ]

    def why(self, _reference: str) -> dict[str, Any]:
        dead = [number for number, state in enumerate(self.states) if state == "dead"]
        verdict = f"rank {dead[0]} was killed" if dead else "all went well"
        return {"first": {"rank": dead[0]} if dead else None, "verdict": verdict}

    def status(self) -> dict[str, Any]:
        return {"points": 100, "url": "tcp://127.0.0.1:8"}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each training was started with; it prints a line and ends well, or as EXIT says."""
    started: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **more: Any) -> object:
        started.append(command)
        assert more["env"]["ALLRANKS_URL"] == "tcp://127.0.0.1:8"  # the ranks find the collector that is watched
        Collector.name = command[command.index("--name") + 1]
        code = 1 if "--kill-rank" in command else 0
        return popen([sys.executable, "-c", f"print('last words'); raise SystemExit({code})"], **more)

    monkeypatch.setattr(demo, "RemoteReader", Collector)
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(demo, "SETTLE_S", 0.5)
    monkeypatch.setattr(Collector, "states", ("finished", "finished"))
    monkeypatch.setenv("ALLRANKS_HTTP", "http://127.0.0.1:9")
    monkeypatch.delenv("ALLRANKS_URL", raising=False)
    return started


def test_it_ends_with_the_run_and_its_ranks(training: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--ranks", "2", "--seconds", "3"]) == 0
    shown = capsys.readouterr().out
    assert "Dashboard: http://127.0.0.1:9" in shown
    assert shown.count("finished") >= 3
    assert "http://127.0.0.1:9/runs/x" in shown
    (command,) = training
    assert command[1:3] == ["-m", "allranks.demo"]
    assert command[command.index("--seconds") + 1] == "3.0"


@pytest.mark.usefixtures("training")
def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "-n", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"]["id"], len(told["ranks"]), told["cause"], told["status"]) == ("x", 2, None, 0)


@pytest.mark.usefixtures("training")
def test_a_rank_that_was_to_die_and_did_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Collector, "states", ("failed", "dead"))
    assert cli.main(["demo", "-n", "2", "--kill-rank", "1"]) == 0
    assert "Cause: rank 1 was killed" in capsys.readouterr().out


@pytest.mark.usefixtures("training")
def test_a_rank_that_was_to_die_and_was_not_seen_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "-n", "2", "--kill-rank", "1"]) == 1
    assert "ended with status 1: last words" in capsys.readouterr().err


@pytest.mark.usefixtures("training")
def test_a_run_that_the_collector_never_saw_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Collector, "find", False)
    assert cli.main(["demo", "-n", "2"]) == 1
    assert capsys.readouterr().err.startswith("allranks: ")


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--ranks", "2", "--kill-rank", "2"], {}),
        (["--kill-rank", "1", "--stall-rank", "0"], {}),
        ([], {"ALLRANKS_URL": "tcp://h:1", "ALLRANKS_HTTP": ""}),
    ],
)
def test_wrong_usage(
    training: list[list[str]], monkeypatch: pytest.MonkeyPatch, arguments: list[str], env: Mapping[str, str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["demo", *arguments]) == 2
    assert not training
