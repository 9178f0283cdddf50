"""Stacks over HTTP and in the terminal: what is stored is shown, and nobody is asked who is not there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving import AppClient, asking

from allranks_bus.http_client import Refused
from allranks_collector import cli
from allranks_collector.api import ApiContext, create_app, models
from allranks_collector.api.context import AskStacks
from allranks_collector.cli import stacks
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder, StillLive

_THREADS = [
    {"name": "MainThread", "id": 1, "main": True, "frames": [["/home/me/train.py", 88, "Trainer.step"]]},
    {"name": "feed", "id": 2, "main": False, "frames": [["/home/me/data.py", 4, "feed\x1b[2J"]]},
]


def _add(store: Store, run: int, rank: int, how: str, answer: dict[str, Any], token: str = "a") -> None:
    with store.transaction() as connection:
        row = (run, rank + 1, rank, token.rjust(32, "0"), 5, how, json.dumps(answer))
        connection.execute("INSERT INTO stacks VALUES (?, ?, ?, ?, ?, ?, ?)", row)


@pytest.fixture
def run(store: Store, build: DatabaseBuilder) -> int:
    """A run that was asked twice; the second time one rank was silent at first and answered late."""
    run = build.run("run-one")
    _add(store, run, 0, "asked", {"threads": []}, token="9")
    _add(store, run, 0, "asked", {"threads": _THREADS})
    _add(store, run, 1, "none", {"reason": "no answer"})
    _add(store, run, 1, "asked", {"threads": _THREADS})
    _add(store, run, 2, "none", {"reason": "stopped by a signal"})
    return run


@contextlib.contextmanager
def _client(store: Store, folder: Path, ask: AskStacks | None = None) -> Generator[AppClient]:
    settings = Settings(folder, store.path, folder / "spool", folder / "files")
    url = "http://127.0.0.1:5570"
    with asking(create_app(ApiContext(store, StillLive(), settings, ask_stacks=ask)), url) as client:
        yield client


@pytest.mark.usefixtures("run")
def test_the_newest_answers_are_shown_as_the_openapi_page_says(store: Store, tmp_path: Path) -> None:
    with _client(store, tmp_path) as client:
        got = client.get("/api/runs/run-one/stacks").json()
        small = client.get("/api/runs/run-one/stacks", params={"threads": "false"}).json()
        one = client.get("/api/runs/run-one/stacks", params={"ranks": "1"}).json()
    said = models.StacksAnswer.model_validate(got).model_dump(mode="json")
    assert said == got
    assert got["text"] == "2 (ranks 0-1) in step train.py:88 · rank 2: stopped by a signal"
    assert small == {**got, "ranks": [{**rank, "threads": []} for rank in got["ranks"]]}
    assert [rank["how"] for rank in got["ranks"]] == ["asked", "asked", "none"]
    assert one == {**got, "ranks": got["ranks"][1:2]}


def test_of_a_run_that_nobody_has_asked_nothing_is_shown(
    store: Store, build: DatabaseBuilder, tmp_path: Path
) -> None:
    build.run("run-one")
    with _client(store, tmp_path) as client:
        got = client.get("/api/runs/run-one/stacks").json()
    assert got == {"asked_at": None, "text": "", "groups": [], "ranks": []}


def test_those_ranks_are_asked_that_are_meant(store: Store, run: int, tmp_path: Path) -> None:
    asked: list[tuple[int, str, Collection[int] | None]] = []

    async def ask(number: int, id_: str, ranks: Collection[int] | None) -> str | None:
        asked.append((number, id_, ranks))
        return None if ranks == {7} else "token"

    with _client(store, tmp_path, ask) as client:
        assert client.post("/api/runs/run-one/stacks", params={"ranks": "0-1"}).json()["text"].startswith("2 (ranks")
        assert client.post("/api/runs/run-one/stacks").status_code == 200
        refused = client.post("/api/runs/run-one/stacks", params={"ranks": "7"})
    assert asked == [(run, "run-one", {0, 1}), (run, "run-one", None), (run, "run-one", {7})]
    assert (refused.status_code, "no rank" in refused.json()["error"]) == (409, True)


@pytest.mark.usefixtures("run")
def test_stored_stacks_are_shown_in_a_terminal_without_a_collector(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.close()
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.setenv("ALLRANKS_DATABASE", str(store.path))
    assert cli.main(["stacks", "run-one"]) == 1
    assert "no collector runs" in capsys.readouterr().err
    assert cli.main(["stacks", "run-one", "--last", "--full"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["2 (ranks 0-1) in step train.py:88", "rank 2: stopped by a signal"]
    assert lines[4:6] == ["rank 0, main thread:", "  /home/me/train.py:88 in Trainer.step"]
    assert "  /home/me/data.py:4 in feed·[2J" in lines
    assert cli.main(["stacks", "run-one", "--last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"][0]["ranks"] == [0, 1]


def test_where_nobody_is_left_to_be_asked_the_way_to_what_is_kept_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ended:
        def stacks(self, *_: object, **__: object) -> None:
            raise Refused(409, "no rank of the run run-one is there to be asked")

    def open_reader(*_: object) -> Ended:
        return Ended()

    monkeypatch.setattr(stacks, "open_reader", open_reader)
    assert cli.main(["stacks", "run-one"]) == 1
    assert "no rank of the run run-one is there to be asked; --last shows" in capsys.readouterr().err
