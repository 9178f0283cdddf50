"""Lines over HTTP: as the page of the API says, in pages, and refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.serving import AppClient, asking

from allranks_collector.api import ApiContext, create_app, models
from allranks_collector.settings import Settings
from allranks_collector.testing import DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allranks_collector.store import Store


@pytest.fixture
def client(store: Store, build: DatabaseBuilder, tmp_path: Path) -> Iterator[AppClient]:
    tees = [build.writer(build.run("a/b") if rank == 0 else 1, rank, role="console") for rank in range(2)]
    for second, text in enumerate(["one", "two", "three"]):
        build.line(tees[second % 2], text, second=second, line=second)
    build.open_line(tees[0], "and on\x1b[0m", second=9)
    settings = Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")
    with asking(create_app(ApiContext(store, StillLive(), settings)), "http://127.0.0.1:5570") as client:
        yield client


def test_pages_follow_each_other(client: AppClient) -> None:
    first = models.LogsAnswer.model_validate(client.get("/api/runs/a/b/logs?after=0&limit=2").json())
    assert [(line.rank, line.text) for line in first.lines] == [(0, "one"), (1, "two")]
    rest = models.LogsAnswer.model_validate(client.get(f"/api/runs/a/b/logs?after={first.next}").json())
    assert [(line.text, line.open) for line in rest.lines] == [("three", False), ("and on\x1b[0m", True)]
    assert rest.next is None


def test_ranks_and_streams_are_chosen(client: AppClient) -> None:
    answer = client.get("/api/runs/a/b/logs?ranks=1&stream=stdout&attempt=all").json()
    assert [line["text"] for line in answer["lines"]] == ["two"]


def test_what_has_arrived_since(client: AppClient) -> None:
    answer = client.get("/api/runs/a/b/logs?since=2").json()
    assert ([line["text"] for line in answer["lines"] if not line["open"]], answer["newest"]) == (["three"], 3)


@pytest.mark.parametrize("asked", ["limit=0", "stream=stdin", "ranks=x", "after=x", "since=1&after=0", "attempt=x"])
def test_nonsense_is_refused_in_one_line(client: AppClient, asked: str) -> None:
    answer = client.get(f"/api/runs/a/b/logs?{asked}")
    assert (answer.status_code, asked.partition("=")[0] in answer.json()["error"]) == (400, True)
