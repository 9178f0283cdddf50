"""Lines over HTTP: as the page of the API says, in pages, and refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.serving import AppClient, asking

from allranks_collector.api import ApiContext, create_app, logs, models
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


def test_lines_are_searched_counted_and_folded(client: AppClient, build: DatabaseBuilder) -> None:
    for tee in (2, 1):
        build.line(tee, "\x1b[32mready\x1b[0m", second=4)
    answer = client.get("/api/runs/a/b/logs?grep=^ready$&begin=1700000003&end=1700000005&fold=true&total=true").json()
    models.LogsAnswer.model_validate(answer)
    assert [(line["ranks"], line["count"]) for line in answer["lines"]] == [([0, 1], 2)]
    assert (answer["total"], answer["offset"], answer["next"], answer["previous"]) == (2, None, None, None)


def test_a_page_is_asked_for_by_what_is_in_it(client: AppClient, build: DatabaseBuilder) -> None:
    build.points(build.writer(1, 0), "loss", [1.0], steps=[1204], seconds=[1.5])
    for place in ("offset=1", "at=3", "step=1204"):
        answer = models.LogsAnswer.model_validate(client.get(f"/api/runs/a/b/logs?{place}&limit=2").json())
        assert ([line.text for line in answer.lines][:2], answer.offset) == (["two", "three"], 1)
        assert answer.previous is not None
        before = client.get(f"/api/runs/a/b/logs?before={answer.previous}").json()
        assert [line["text"] for line in before["lines"]] == ["one"]


def test_lines_are_downloaded_as_text_with_nothing_in_it_that_acts(
    client: AppClient, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "TEXT_LINES", 2)
    for tee in (1, 2):
        build.line(tee, "\x1b[32mready\x1b[0m\x9b2J\r\x00<b>", second=4)
    answer = client.get("/api/runs/a/b/logs.txt")
    ready = "ready··<b>"
    expected = ["0 one", "1 two", "0 three", f"0 {ready}", f"1 {ready}", "0 and on"]
    assert answer.text.splitlines() == [f"host-a:{line}" for line in expected]
    assert answer.headers["content-disposition"] == 'attachment; filename="a-b.log.txt"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    folded = client.get("/api/runs/a/b/logs.txt?fold=true&grep=ready|two").text
    assert folded == f"host-a:1 two\n×2 [0-1] {ready}\n"
    assert client.get("/api/runs/a/b/logs.txt?grep=nowhere").text == ""


def test_a_text_that_cannot_be_made_is_refused_before_it_begins(client: AppClient) -> None:
    answer = client.get("/api/runs/a/b/logs.txt?grep=(")
    assert (answer.status_code, "missing )" in answer.json()["error"]) == (400, True)
    assert client.get("/api/runs/nobody/logs.txt").status_code == 404


@pytest.mark.parametrize(
    "asked",
    [
        *("limit=0", "stream=stdin", "ranks=x", "after=x", "since=1&after=0", "attempt=x"),
        *("grep=(", "begin=x", "end=1&begin=2", "odd=maybe", "before=x", "offset=-1", "at=99", "step=5", "step=x"),
        *("step=5&offset=1", "fold=2", "total=x"),
    ],
)
def test_nonsense_is_refused_in_one_line(client: AppClient, asked: str) -> None:
    answer = client.get(f"/api/runs/a/b/logs?{asked}")
    assert (answer.status_code, asked.partition("=")[0] in answer.json()["error"]) == (400, True)
