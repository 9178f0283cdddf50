"""The client gives back what the collector has, in the shapes that data frames take."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.unit.serving import serving

import allranks
from allranks import client as module
from allranks.client import Client, NoCollector, Refused, Table, Unreachable, find_url
from allranks_bus import processes
from allranks_bus.errors import SettingError
from allranks_bus.home import Endpoint, write_endpoint
from allranks_collector.api import ApiContext, create_app
from allranks_collector.files import FileStore
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.testing import T0_NS, DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T0 = T0_NS / 1e9
# Name, content, host; of the first there are two versions.
FILES = (
    ("ckpt/ä b.pt", b"old", "host-a"),
    ("ckpt/ä b.pt", b"newer", "host-a"),
    ("log.txt", b"of a", "host-a"),
    ("log.txt", b"of b", "host-b"),
)


def _keep(build: DatabaseBuilder, files: FileStore, run: int, name: str, body: bytes, host: str) -> None:
    digest = hashlib.sha256(body).hexdigest()
    partial = files.open(bytes(16), len(body))
    partial.write(body)
    partial.seal()
    files.place({bytes(16): digest})
    build.file(run, name, digest, len(body), host=host)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A collector with one run of two ranks, and one that is empty."""
    folder = tmp_path_factory.mktemp("collector")
    with Store.open(folder / "test.duckdb") as store:
        build = DatabaseBuilder(store)
        run = build.run("run-one", project="vision", name="first")
        for rank in (0, 1):
            writer = build.writer(run, rank, world_size=3)
            build.points(writer, "loss", [1.0 + rank, math.nan, 3.0])
            build.points(writer, "acc", [0.5], steps=[2])
            build.points(writer, "cpu", [50.0, 60.0], kind="system")
            build.object(writer, "text", "hello")
            build.object(writer, "weights", {"_type": "histogram", "bins": [0, 1], "counts": [3]})
            build.event(run, writer, "opened", {"rank": rank})
            for line in range(3):
                build.line(build.writer(run, rank, role="console"), f"{rank}: {line}", line=line, second=line)
        for name, body, host in FILES:
            _keep(build, FileStore(folder / "files"), run, name, body, host)
        build.run("run-two", project="text", created_s=60)
        settings = Settings(folder, folder / "test.duckdb", folder / "spool", folder / "files")
        with serving(create_app(ApiContext(store, StillLive(), settings))) as url:
            yield url


@pytest.fixture
def client(url: str) -> Client:
    return Client(url)


TABLES: dict[str, Callable[[Client, str], Table]] = {
    "ranks": lambda client, run: client.ranks(run),
    "keys": lambda client, run: client.keys(run),
    "metrics": lambda client, run: client.metrics(run),
    "metrics over ranks": lambda client, run: client.metrics(run, reduce="ranks"),
    "history": lambda client, run: client.history(run),
    "system": lambda client, run: client.system(run),
    "events": lambda client, run: client.events(run),
    "objects": lambda client, run: client.objects(run),
    "files": lambda client, run: client.files(run),
    "logs": lambda client, run: client.logs(run),
}


# -- data frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("run", ["run-one", "run-two"])
def test_data_frames_take_tables_as_they_are(client: Client, name: str, run: str) -> None:
    """Also where there is no row at all."""
    table = TABLES[name](client, run)
    rows = len(next(iter(table.values())))
    assert (rows > 0) == (run == "run-one")
    assert pd.DataFrame(table).shape == (rows, len(table))
    assert pl.DataFrame(table).shape == (rows, len(table))
    arrow = pa.table(table)
    assert (arrow.num_rows, arrow.column_names) == (rows, list(table))


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_has_the_columns_of_a_full_one(client: Client, name: str) -> None:
    assert list(TABLES[name](client, "run-two")) == list(TABLES[name](client, "run-one"))


def test_numbers_are_numbers_in_a_frame(client: Client) -> None:
    frame = pd.DataFrame(client.metrics("run-one", "loss"))
    assert frame["value"].dtype == "float64"
    assert frame["step"].dtype == "int64"
    assert frame.groupby("step")["value"].mean().dropna().to_dict() == {0: 1.5, 2: 3.0}


def test_all_lines_come_however_many_pages_they_take(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allranks.client.PAGE_LINES", 4)
    assert client.logs("run-one")["text"] == ["0: 0", "1: 0", "0: 1", "1: 1", "0: 2", "1: 2"]
    assert client.logs("run-one", ranks=1, stream="stdout", attempt="all")["text"] == ["1: 0", "1: 1", "1: 2"]
    assert client.logs("run-one", limit=2)["text"] == ["0: 2", "1: 2"]
    assert client.logs("run-one", stream="stderr")["text"] == []


def test_lines_are_searched_where_they_are(client: Client) -> None:
    lines = client.logs("run-one", grep="^0: [01]")
    assert lines["text"] == ["0: 0", "0: 1"]
    assert client.logs("run-one", begin=lines["time"][0], end=lines["time"][1])["text"] == ["0: 0", "1: 0"]
    assert client.logs("run-one", odd=True)["text"] == []
    with pytest.raises(Refused, match="a regular expression"):
        client.logs("run-one", grep="(")


# -- the answers ------------------------------------------------------------------------------------------


def test_runs_are_plain_dicts(client: Client) -> None:
    assert [run["id"] for run in client.runs()] == ["run-two", "run-one"]
    assert [run["id"] for run in client.runs(project="vision")] == ["run-one"]
    assert [run["id"] for run in client.runs(limit=1)] == ["run-two"]
    assert client.runs(state="failed") == []
    assert client.run("first")["summary"] == {"acc": 0.5, "loss": 3.0}


def test_all_runs_come_however_many_pages_they_take(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 1)
    assert [run["id"] for run in client.runs()] == ["run-two", "run-one"]


def test_all_events_come_however_many_pages_they_take(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_ROWS", 1)
    events = client.events("run-one")
    assert (events["event"], events["kind"], events["rank"]) == ([1, 2], ["opened", "opened"], [0, 1])
    assert json.loads(events["body"][1]) == {"rank": 1}
    assert client.events("run-one", kind="closed")["event"] == []


def test_ranks_and_keys(client: Client) -> None:
    ranks = client.ranks("run-one")
    assert (ranks["rank"], ranks["state"]) == ([0, 1, 2], ["running", "running", "expected"])
    keys = client.keys("run-one")
    assert dict(zip(keys["key"], keys["kind"], strict=True)) == {
        "acc": "metric",
        "loss": "metric",
        "cpu": "system",
        "text": "object",
        "weights": "object",
    }


def test_metrics_by_rank_and_over_ranks(client: Client) -> None:
    one = client.metrics("run-one", ["loss"], ranks=1, step_range=(0, 1))
    assert (one["key"], one["rank"], one["step"]) == (["loss"] * 2, [1, 1], [0, 1])
    assert (one["value"], one["count"], one["nonfinite"]) == ([2.0, None], [1, 0], [0, 1])
    over = client.metrics("run-one", "loss", reduce="ranks")
    assert (over["mean"], over["min_rank"]) == ([1.5, None, 3.0], [0, None, 0])
    assert client.metrics("run-one", "loss", ranks=[0, 1], buckets=1)["count"] == [2, 2]
    by_time = client.metrics("run-one", "acc", ranks="0", x="time")
    assert (by_time["x"], by_time["time"]) == ([0.0], [T0])


def test_history_is_every_point(client: Client) -> None:
    history = client.history("run-one", ["loss", "acc"], ranks=[0])
    assert list(zip(*history.values(), strict=True)) == [
        ("loss", 0, 1, 0, T0, 1.0),
        ("loss", 0, 1, 1, T0 + 1, None),
        ("loss", 0, 1, 2, T0 + 2, 3.0),
        ("acc", 0, 1, 2, T0, 0.5),
    ]
    assert set(client.history("run-one")["key"]) == {"acc", "loss"}


def test_system_figures(client: Client) -> None:
    table = client.system("run-one", ranks=0)
    assert (table["key"], table["x"], table["value"]) == (["cpu", "cpu"], [0.0, 1.0], [50.0, 60.0])


def test_objects_say_how_to_read_them(client: Client) -> None:
    table = client.objects("run-one", ranks=0)
    assert (table["key"], table["type"], table["value"][0]) == (["text", "weights"], ["text", "histogram"], "hello")
    assert json.loads(table["value"][1])["counts"] == [3]
    assert client.objects("run-one", "text", ranks=1)["value"] == ["hello"]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_an_export_is_a_file(client: Client, tmp_path: Path, format: str) -> None:  # noqa: A002
    path = client.export("first", "metrics", format, tmp_path / "out")
    read: Any = getattr(pd, {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}[format])
    frame = read(path, **({"lines": True} if format == "jsonl" else {}))
    assert list(frame.columns) == ["key", "rank", "attempt", "step", "time", "value"]
    assert len(frame) == 8


def test_an_export_names_its_file_by_itself(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(client.export("first", "config", "csv")) == "run-one-config.csv"
    assert (tmp_path / "run-one-config.csv").read_text() == "key,value\n"


# -- errors -----------------------------------------------------------------------------------------------


def test_a_run_that_is_not_there(client: Client) -> None:
    with pytest.raises(Refused, match="no run has the id") as caught:
        client.run("nothing/at?all")
    assert caught.value.status == 404


def test_a_wrong_argument(client: Client) -> None:
    with pytest.raises(Refused, match="reduce='sum' cannot be used") as caught:
        client.metrics("run-one", reduce="sum")
    assert caught.value.status == 400


def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"no collector answers at http://127\.0\.0\.1:9"):
        Client("http://127.0.0.1:9").runs()


# -- whom to ask ------------------------------------------------------------------------------------------


def test_the_argument_comes_before_the_environment(tmp_path: Path) -> None:
    env = {"ALLRANKS_HTTP": "http://b:2/", "ALLRANKS_HOME": str(tmp_path)}
    assert find_url("http://a:1", env) == "http://a:1"
    assert find_url(None, env) == "http://b:2"


def test_this_users_collector_comes_last(tmp_path: Path) -> None:
    start = processes.start_time(os.getpid())
    assert start is not None
    write_endpoint(tmp_path, Endpoint("tcp://x:1", "http://127.0.0.1:77", os.getpid(), start, "0" * 32, "0", 0.0))
    assert find_url(None, {"ALLRANKS_HOME": str(tmp_path)}) == "http://127.0.0.1:77"


def test_no_collector_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoCollector, match="start one with `allranks up`") as caught:
        find_url(None, {"ALLRANKS_HOME": str(tmp_path)})
    assert str(tmp_path) in str(caught.value)


def test_a_data_address_is_not_an_http_one() -> None:
    with pytest.raises(SettingError, match="expected an address such as"):
        Client("tcp://127.0.0.1:5571")


def test_a_client_can_be_pickled(client: Client) -> None:
    assert pickle.loads(pickle.dumps(client)).runs() == client.runs()


def test_it_is_part_of_the_public_face() -> None:
    assert allranks.Client is Client


# -- files ------------------------------------------------------------------------------------------------


def test_files_are_listed_and_downloaded(client: Client, tmp_path: Path) -> None:
    files = client.files("run-one")
    assert list(zip(files["name"], files["host"], files["size"], files["versions"], strict=True)) == [
        ("ckpt/ä b.pt", "host-a", 5, 2),
        ("log.txt", "host-a", 4, 1),
        ("log.txt", "host-b", 4, 1),
    ]
    assert client.download("first", "ckpt/ä b.pt", tmp_path) == tmp_path / "ä b.pt"
    assert (tmp_path / "ä b.pt").read_bytes() == b"newer"
    path = client.download("run-one", "log.txt", tmp_path / "log", host="host-b")
    assert path.read_bytes() == b"of b"


def test_an_older_version_is_downloaded_by_its_digest(client: Client, tmp_path: Path) -> None:
    old = hashlib.sha256(b"old").hexdigest()
    assert client.download("run-one", "ckpt/ä b.pt", tmp_path, digest=old).read_bytes() == b"old"


@pytest.mark.parametrize(("name", "status"), [("log.txt", 409), ("none", 404), ("../../etc/passwd", 404)])
def test_what_cannot_be_downloaded_is_said(client: Client, tmp_path: Path, name: str, status: int) -> None:
    with pytest.raises(Refused) as caught:
        client.download("run-one", name, tmp_path)
    assert caught.value.status == status
    assert list(tmp_path.iterdir()) == []
