"""Both readers: what they ask a collector for, what they find in a file, and that they agree on the interface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allranks_bus import processes
from allranks_collector.cli.common import CommandError
from allranks_collector.cli.local_reader import LocalReader
from allranks_collector.cli.reader import find_collector, open_reader
from allranks_collector.cli.remote_reader import RemoteReader
from allranks_collector.queries.select import RunNotFound
from allranks_collector.settings import Settings
from allranks_collector.store import Store, StoreMissing
from allranks_collector.testing import DatabaseBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from allranks_bus.http_client import Params
    from allranks_collector.cli.reader import Reader


class Answers:
    """A transport that answers from a table and keeps what it was asked."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, dict[str, object]]] = []

    def get(self, path: str, params: Params | None = None) -> Any:
        self._keep("GET", path, params)
        return self.answers[path]

    def post(self, path: str, params: Params | None = None) -> Any:
        self._keep("POST", path, params)
        return self.answers[path]

    def delete(self, path: str, params: Params | None = None) -> Any:
        self._keep("DELETE", path, params)
        return {}

    def download(
        self, path: str, target: Path, params: Params | None = None, *, timeout_s: float | None = None
    ) -> int:
        assert timeout_s is not None
        self._keep("GET", path, params)
        return target.write_bytes(b"data")

    def _keep(self, method: str, path: str, params: Params | None) -> None:
        self.asked.append(
            (method, path, {name: value for name, value in (params or {}).items() if value is not None})
        )


def test_runs_are_asked_for_with_what_was_given() -> None:
    answers = Answers({"/api/runs": {"runs": [{"id": "a"}], "total": 1}})
    assert RemoteReader("http://h/", answers).runs(project="p", limit=5) == [{"id": "a"}]
    assert answers.asked == [("GET", "/api/runs", {"project": "p", "limit": 5, "offset": 0})]


def test_ranks_are_asked_for_stacks_or_what_they_said_last_is_shown() -> None:
    answers = Answers({"/api/runs/r/stacks": {"ranks": []}})
    reader = RemoteReader("http://h/", answers)
    assert reader.stacks("r", "0-3", ask=True) == reader.stacks("r") == {"ranks": []}
    assert answers.asked == [("POST", "/api/runs/r/stacks", {"ranks": "0-3"}), ("GET", "/api/runs/r/stacks", {})]


def test_more_runs_than_a_page_are_asked_for_in_pages() -> None:
    answers = Answers({"/api/runs": {"runs": [{"id": "a"}] * 1000}})
    assert len(RemoteReader("http://h", answers).runs(limit=2000)) == 2000
    assert [params["offset"] for _, _, params in answers.asked] == [0, 1000]


def test_a_name_cannot_leave_its_place_in_the_address() -> None:
    answers = Answers({"/api/runs/a%2F..%3Fb": {"id": "x"}})
    assert RemoteReader("http://h", answers).run("a/..?b") == {"id": "x"}


def test_the_other_questions(tmp_path: Path) -> None:
    answers = Answers({"/api/runs/r/ranks": {"ranks": [{"rank": 0}]}, "/api/collector": {"version": "1"}})
    reader, path = RemoteReader("http://h", answers), tmp_path / "file"
    assert reader.ranks("r", 2) == [{"rank": 0}]
    assert reader.status() == {"version": "1"}
    reader.export("r", "metrics", "csv", path)
    reader.remove("r", force=True)
    assert path.read_bytes() == b"data"
    assert answers.asked == [
        ("GET", "/api/runs/r/ranks", {"attempt": 2}),
        ("GET", "/api/collector", {}),
        ("GET", "/api/runs/r/export", {"what": "metrics", "format": "csv"}),
        ("DELETE", "/api/runs/r", {"force": True}),
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path, database=tmp_path / "allranks.duckdb", spool=tmp_path / "spool", files=tmp_path / "files"
    )


@pytest.fixture
def local(settings: Settings) -> LocalReader:
    with Store.open(settings.database) as store:
        database = DatabaseBuilder(store)
        run = database.run("run-a", name="first", project="p")
        writer = database.writer(run, 0, world_size=2, last_step=2)
        database.points(writer, "loss", [3.0, 2.0, 1.0])
        ended = database.run("run-b", name="second", project="q", created_s=10)
        database.writer(ended, 0, state="finished")
    return LocalReader(settings)


def test_a_file_is_read_as_a_collector_would_answer(local: LocalReader) -> None:
    reader: Reader = local
    assert [run["id"] for run in reader.runs()] == ["run-b", "run-a"]
    assert [run["id"] for run in reader.runs(project="p", limit=1)] == ["run-a"]
    assert reader.run("first")["id"] == "run-a"
    assert [rank["state"] for rank in reader.ranks("run-a")] == ["running", "expected"]


def test_a_file_is_exported(local: LocalReader, tmp_path: Path) -> None:
    local.export("run-a", "metrics", "jsonl", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(row["key"], row["rank"], row["step"], row["value"]) for row in rows] == [
        ("loss", 0, 0, 3.0),
        ("loss", 0, 1, 2.0),
        ("loss", 0, 2, 1.0),
    ]


def test_a_run_is_removed_from_a_file(local: LocalReader) -> None:
    local.remove("second")
    assert [run["id"] for run in local.runs()] == ["run-a"]


def test_a_running_run_is_removed_only_by_force(local: LocalReader) -> None:
    with pytest.raises(CommandError, match="run-a is running"):
        local.remove("run-a")
    local.remove("run-a", force=True)
    assert [run["id"] for run in local.runs()] == ["run-b"]


def test_a_run_whose_ranks_went_with_the_collector_is_not_called_running(
    local: LocalReader, settings: Settings
) -> None:
    me = processes.current()
    gone = {"pid": me.pid, "pid_start": me.start + 1, "boot_id": me.boot_id, "pid_ns": me.pid_ns}
    with Store.open(settings.database) as store, store.transaction() as connection:
        connection.execute("UPDATE writers SET identity = ?", [json.dumps(gone)])
    assert [run["state"] for run in local.runs()] == ["finished", "dead"]
    assert [rank["state"] for rank in local.ranks("run-a")] == ["dead", "expected"]
    assert local.why("run-a")["first"]["kind"] == "gone"
    local.remove("run-a")
    assert [run["id"] for run in local.runs()] == ["run-b"]


def test_what_is_not_there_is_said(local: LocalReader, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        local.run("nobody")
    nowhere = LocalReader(
        Settings(home=tmp_path, database=tmp_path / "none", spool=settings.spool, files=settings.files)
    )
    assert nowhere.runs() == []
    for ask in (lambda: nowhere.run("x"), lambda: nowhere.remove("x")):
        with pytest.raises(StoreMissing):
            ask()
    assert not (tmp_path / "none").exists()


def test_where_the_collector_is(tmp_path: Path) -> None:
    env = {"ALLRANKS_HOME": str(tmp_path)}
    assert find_collector(None, env) is None
    assert find_collector(None, env | {"ALLRANKS_HTTP": "http://a:1/"}) == "http://a:1"
    assert find_collector("http://b:2", env | {"ALLRANKS_HTTP": "http://a:1"}) == "http://b:2"


def test_without_a_collector_the_file_is_read(tmp_path: Path) -> None:
    env = {"ALLRANKS_HOME": str(tmp_path)}
    assert isinstance(open_reader(None, env), LocalReader)
    assert isinstance(open_reader("http://h:1", env), RemoteReader)
