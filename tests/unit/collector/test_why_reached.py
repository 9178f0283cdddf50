"""Why a run is as it is, as it is reached: over HTTP, from a file, and by `allranks why` and `allranks ranks`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.unit.serving import AppClient, asking

from allranks_collector.api import ApiContext, create_app
from allranks_collector.api.why import WhyAnswer
from allranks_collector.cli.app import run as cli
from allranks_collector.cli.local_reader import LocalReader
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "http://127.0.0.1:5570"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, tmp_path / "allranks.duckdb", tmp_path / "spool", tmp_path / "files")


@pytest.fixture
def database(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.database) as store:
        build = DatabaseBuilder(store)
        run = build.run("run-1")
        build.points(build.writer(run, 0, world_size=3, host="good"), "loss", [1.0])
        bad = build.writer(run, 1, world_size=3, host="bad\x1b[31mhost", pid=42)
        build.points(bad, "loss", [float("nan")])
        build.state(bad, "dead", {"signal": "SIGSEGV"}, since_s=1.0)
        yield store


@pytest.fixture
def client(database: Store, settings: Settings) -> Iterator[AppClient]:
    with asking(create_app(ApiContext(database, StillLive(), settings)), HOST) as client:
        yield client


def test_the_answer_over_http_is_as_its_page_says(client: AppClient) -> None:
    answer = client.get("/api/runs/run-1/why")
    assert answer.status_code == 200
    found = WhyAnswer.model_validate_json(answer.text)
    assert set(json.loads(answer.text)) == set(WhyAnswer.model_fields)
    assert found.first is not None
    assert (found.first.rank, found.first.metrics[0].value) == (1, None)
    assert found.roll_call.text == "2 of 3 present; missing 2"


@pytest.mark.parametrize(("path", "status"), [("nobody/why", 404), ("run-1/why?attempt=x", 400)])
def test_what_cannot_be_answered_is_said(client: AppClient, path: str, status: int) -> None:
    assert client.get(f"/api/runs/{path}").status_code == status


def test_an_attempt_that_nobody_came_to_is_expected(client: AppClient) -> None:
    assert client.get("/api/runs/run-1/why?attempt=9").json()["verdict"] == "nobody has come yet"


def test_a_file_is_read_as_a_collector_would_answer(database: Store, settings: Settings, client: AppClient) -> None:
    told = client.get("/api/runs/run-1/why").json()
    database.close()
    assert LocalReader(settings).why("run-1") == told


@pytest.mark.parametrize("command", ["why", "ranks"])
def test_the_commands_say_who_is_missing_and_let_no_rank_steer_the_terminal(
    command: str,
    database: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database.close()
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    assert cli([command, "run-1"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 present; missing 2" in printed
    assert "SIGSEGV" in printed
    assert "\x1b" not in printed


def test_why_as_json_is_the_whole_answer(
    database: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database.close()
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    assert cli(["why", "run-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"]["kind"] == "crash"
