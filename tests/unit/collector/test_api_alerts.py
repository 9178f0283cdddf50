"""A test of alerts over HTTP, and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving import asking

from allranks_collector import cli
from allranks_collector.api import ApiContext, create_app, models
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder, StillLive

_HOST = "http://127.0.0.1:5570"
_SENT = {"name": "json (1)", "sent": True, "problem": ""}


def _post(store: Store, tmp_path: Path, found: list[dict[str, Any]] | None) -> tuple[int, dict[str, Any]]:
    async def test() -> list[dict[str, Any]] | None:
        return found

    settings = Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")
    with asking(create_app(ApiContext(store, StillLive(), settings, test_alerts=test)), _HOST) as client:
        response = client.post("/api/alerts/test")
        return response.status_code, response.json()


def test_each_target_is_told_with_its_answer(store: Store, tmp_path: Path) -> None:
    status, answer = _post(store, tmp_path, [_SENT])
    assert (status, models.AlertTestAnswer.model_validate(answer).model_dump()) == (200, {"targets": [_SENT]})


@pytest.mark.parametrize(("found", "words"), [([], "set alert_targets"), (None, "another test is under way")])
def test_what_cannot_be_is_refused_in_one_line(
    store: Store, tmp_path: Path, found: list[dict[str, Any]] | None, words: str
) -> None:
    status, answer = _post(store, tmp_path, found)
    assert status == 409
    assert words in answer["error"]


def test_without_a_collector_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    assert cli.main(["alerts", "test"]) == 1
    assert "allranks up" in capsys.readouterr().err


def test_the_alerts_of_a_run_are_listed_with_what_became_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    title = "run r1: rank 0 on h is stalled"
    told = {"level": "WARN", "title": title, "targets": {"json (1)": "no route; it is tried again"}}
    with Store.open(tmp_path / "allranks.duckdb") as store:
        build = DatabaseBuilder(store)
        run = build.run("r1")
        writer = build.writer(run)
        build.event(run, writer, "alerted", told)
        build.event(run, writer, "opened", {"rank": 0})
        lost = {"target": "json (1)", "tries": 4, "problem": "no route", "title": title}
        build.event(run, writer, "alert-lost", lost)
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    assert cli.main(["alerts", "list", "r1"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [title in row for row in rows] == [True, True]
    assert "json (1): no route; it is tried again" in rows[0]
    assert "json (1): never taken: no route" in rows[1]
