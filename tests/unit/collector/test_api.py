"""The HTTP API: what it answers, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow.parquet as pq
import pytest
from tests.unit.serving import AppClient, asking, serving

from allranks_collector.api import ApiContext, create_app, models, pages
from allranks_collector.api.context import QUERIES_AT_ONCE
from allranks_collector.api.guard import is_our_host
from allranks_collector.api.service import openmetrics
from allranks_collector.api.stream import stream
from allranks_collector.settings import Settings
from allranks_collector.testing import T0_NS, DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

    from allranks_collector.store import Store

HOST = "http://127.0.0.1:5570"


@pytest.fixture
def live() -> StillLive:
    return StillLive()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files", allowed_hosts=("trainer.example",)
    )


@pytest.fixture
def client(store: Store, live: StillLive, settings: Settings) -> Iterator[AppClient]:
    with asking(create_app(ApiContext(store, live, settings)), HOST) as client:
        yield client


@pytest.fixture
def run(build: DatabaseBuilder) -> int:
    """A run of two ranks and a child, with some of everything."""
    run = build.run("run-one", project="vision", group="g", name="first", tags=["a"])
    for rank in (0, 1):
        writer = build.writer(run, rank, world_size=3, last_s=9)
        build.points(writer, "loss", [1.0 + rank, math.nan, 3.0])
        build.points(writer, "gpu/util", [50.0], kind="system")
        build.object(writer, "text", "hello <b>")
        build.event(run, writer, "opened", {"rank": rank})
        build.entry("config", run, writer, "lr", 0.1)
    build.points(build.writer(run, 0, role="child"), "child/loss", [5.0])
    build.define(run, "loss", summary="max", step_metric="epoch")
    build.entry("summary", run, writer, "best", 7)
    return run


def get(client: AppClient, path: str, expect: int = 200, **params: Any) -> Any:
    response = client.get(path, params=params or None)
    assert response.status_code == expect, response.text
    return response.json()


# -- the answers ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/api/runs", models.RunsAnswer),
        ("/api/runs/run-one", models.RunDetails),
        ("/api/runs/run-one/ranks", models.RanksAnswer),
        ("/api/runs/run-one/keys", models.KeysAnswer),
        ("/api/runs/run-one/metrics", models.CurvesAnswer),
        ("/api/runs/run-one/metrics?reduce=ranks", models.CurvesAnswer),
        ("/api/runs/run-one/metrics?buckets=0&x=time", models.CurvesAnswer),
        ("/api/runs/run-one/system", models.CurvesAnswer),
        ("/api/runs/run-one/objects", models.ObjectsAnswer),
        ("/api/runs/run-one/events", models.EventsAnswer),
    ],
)
def test_answers_are_as_the_openapi_page_says(client: AppClient, path: str, model: type[BaseModel]) -> None:
    """Nothing is missing, and nothing is there that the page does not tell of."""
    got = get(client, path)
    said = model.model_validate(got, strict=False).model_dump(exclude_unset=True)
    assert said == got
    assert any(len(value) for value in got.values() if isinstance(value, list)) or "id" in got


@pytest.mark.usefixtures("run")
def test_runs_can_be_filtered_and_paged(client: AppClient, build: DatabaseBuilder) -> None:
    build.run("run-two", project="text", created_s=60)
    assert [run["id"] for run in get(client, "/api/runs")["runs"]] == ["run-two", "run-one"]
    assert get(client, "/api/runs", limit=1)["total"] == 2
    assert [run["id"] for run in get(client, "/api/runs", limit=1, offset=1)["runs"]] == ["run-one"]
    assert [run["id"] for run in get(client, "/api/runs", project="text")["runs"]] == ["run-two"]
    assert [run["id"] for run in get(client, "/api/runs", group="g")["runs"]] == ["run-one"]
    assert [run["id"] for run in get(client, "/api/runs", state="running")["runs"]] == ["run-one"]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("reference", ["run-one", "run-o", "first"])
def test_a_run_is_found_by_id_prefix_or_name(client: AppClient, reference: str) -> None:
    assert get(client, f"/api/runs/{reference}")["id"] == "run-one"


def test_a_name_may_have_slashes(client: AppClient, build: DatabaseBuilder) -> None:
    build.run("run-one", name="sweep/3")
    assert get(client, "/api/runs/sweep%2F3")["id"] == "run-one"
    assert get(client, "/api/runs/sweep%2F3/ranks") == {"ranks": [], "claims": []}


@pytest.mark.usefixtures("run")
def test_a_summary_is_by_definition_and_by_hand(client: AppClient) -> None:
    assert get(client, "/api/runs/run-one")["summary"] == {"loss": 3.0, "child/loss": 5.0, "best": 7}


@pytest.mark.usefixtures("run")
def test_live_writers_are_seen_later_than_the_database_knows(client: AppClient, live: StillLive) -> None:
    live.seen[1] = T0_NS + 60 * 10**9
    assert get(client, "/api/runs/run-one")["last_seen"] == T0_NS / 1e9 + 60
    ranks = get(client, "/api/runs/run-one/ranks")["ranks"]
    assert [rank["last_seen"] for rank in ranks] == [T0_NS / 1e9 + 60, T0_NS / 1e9 + 9, None]
    assert ranks[2]["state"] == "expected"


@pytest.mark.usefixtures("run")
def test_metrics_take_keys_ranks_and_steps(client: AppClient) -> None:
    path = "/api/runs/run-one/metrics"
    curves = get(client, path, key=["loss", "child/loss"], ranks="0", step_min=0, step_max=1)["series"]
    assert [(curve["key"], curve["rank"], curve["value"]) for curve in curves] == [
        ("loss", 0, [1.0, None]),
        ("child/loss", 0, [5.0]),
    ]
    assert get(client, path, key="loss", reduce="ranks")["series"][0]["mean"] == [1.5, None, 3.0]


def test_large_answers_are_compressed_for_those_who_take_that(client: AppClient, build: DatabaseBuilder) -> None:
    build.points(build.writer(build.run("run-one")), "loss", [float(step) for step in range(5000)])
    path = "/api/runs/run-one/metrics?buckets=0"
    packed = client.get(path, headers={"accept-encoding": "gzip"})
    plain = client.get(path, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("what", ["metrics", "system", "events", "ranks", "config", "summary"])
def test_exports_say_the_same_in_every_format(client: AppClient, what: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    files = {
        name: client.get("/api/runs/run-one/export", params={"what": what, "format": name})
        for name in ("jsonl", "csv", "parquet")
    }
    rows = [json.loads(line) for line in files["jsonl"].text.splitlines()]
    assert rows
    assert files["csv"].text.splitlines()[0].split(",") == list(rows[0])
    assert len(files["csv"].text.splitlines()) == 1 + len(rows)
    (tmp_path / "read.parquet").write_bytes(files["parquet"].content)
    table = pq.read_table(tmp_path / "read.parquet")
    assert (table.column_names, table.num_rows) == (list(rows[0]), len(rows))
    (tmp_path / "read.parquet").unlink()
    assert files["jsonl"].headers["content-disposition"] == f'attachment; filename="run-one-{what}.jsonl"'
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("run")
def test_exported_metrics_have_one_row_a_point(client: AppClient) -> None:
    lines = client.get("/api/runs/run-one/export?what=metrics").text.splitlines()
    assert [list(json.loads(line).values()) for line in lines[:3]] == [
        ["child/loss", 0, 1, 0, T0_NS / 1e9, 5.0],
        ["loss", 0, 1, 0, T0_NS / 1e9, 1.0],
        ["loss", 0, 1, 1, T0_NS / 1e9 + 1, None],
    ]
    assert len(lines) == 7


@pytest.mark.usefixtures("run")
def test_parquet_keeps_what_is_not_finite(client: AppClient, tmp_path: Path) -> None:
    response = client.get("/api/runs/run-one/export?what=metrics&format=parquet")
    (tmp_path / "read.parquet").write_bytes(response.content)
    values = pq.read_table(tmp_path / "read.parquet")["value"].to_pylist()
    assert [math.isnan(value) for value in values] == [False, False, True, False, False, True, False]


# -- removing ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("run")
def test_a_running_run_is_removed_only_by_force(client: AppClient) -> None:
    refused = client.delete("/api/runs/run-one")
    assert (refused.status_code, refused.json()) == (
        409,
        {"error": "the run run-one is running: end it first, or say force=true"},
    )
    assert client.delete("/api/runs/run-one?force=true").json() == {"removed": "run-one"}
    assert get(client, "/api/runs") == {"runs": [], "total": 0}


def test_removing_tells_the_ingest(store: Store, live: StillLive, settings: Settings, build: DatabaseBuilder) -> None:
    build.run("other")
    number = build.run("run-one")
    removed: list[int] = []
    with asking(create_app(ApiContext(store, live, settings, removed.append)), HOST) as client:
        assert client.delete("/api/runs/run-one").status_code == 200
    assert removed == [number]


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/runs/nothing", 404, "no run has the id"),
        ("/api/runs/run-one/metrics?buckets=-1", 400, "buckets=-1 cannot be used: expected 0"),
        ("/api/runs/run-one/metrics?buckets=many", 400, "buckets='many' cannot be used"),
        ("/api/runs/run-one/metrics?ranks=1-", 400, "ranks='1-' cannot be used"),
        ("/api/runs/run-one/metrics?attempt=last", 400, "attempt='last' cannot be used"),
        ("/api/runs/run-one/export?format=xls", 400, "expected one of jsonl, csv, parquet"),
        ("/api/runs/run-one/export?what=all", 400, "expected one of metrics"),
        ("/api/runs?limit=0", 400, "limit=0 cannot be used: expected 1 to 1000"),
        ("/api/nothing", 404, "Not Found"),
        ("/static/../__init__.py", 404, ""),
        ("/static/%2e%2e/api/app.py", 404, ""),
    ],
)
def test_errors_are_one_line(client: AppClient, path: str, status: int, words: str) -> None:
    body = get(client, path, status)
    assert list(body) == ["error"]
    assert words in body["error"]
    assert "\n" not in body["error"]


def test_an_ambiguous_prefix_names_the_runs(client: AppClient, build: DatabaseBuilder) -> None:
    build.run("run-aa")
    build.run("run-ab", created_s=1)
    assert "fits 2 runs: give more of the id (run-ab, run-aa)" in get(client, "/api/runs/run-a", 409)["error"]


def test_a_store_that_is_gone_is_503(client: AppClient, store: Store) -> None:
    store.close()
    assert "has been closed" in get(client, "/api/runs", 503)["error"]


def test_more_questions_than_can_be_answered_are_503(
    store: Store, live: StillLive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_collector.api.context.TURN_S", 0.01)
    context = ApiContext(store, live, settings)
    with contextlib.ExitStack() as others, asking(create_app(context), HOST) as client:
        for _ in range(QUERIES_AT_ONCE):
            others.enter_context(context.reading())
        assert "busy with other questions" in get(client, "/api/runs", 503)["error"]
        assert get(client, "/readyz")["ready"]
        assert get(client, "/healthz") == {"status": "ok"}
        others.close()
        assert get(client, "/api/runs") == {"runs": [], "total": 0}


def test_only_so_many_wait_for_their_turn(
    store: Store, live: StillLive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_collector.api.context.QUERIES_WAITING", -QUERIES_AT_ONCE)
    with asking(create_app(ApiContext(store, live, settings)), HOST) as client:
        assert "busy with other questions" in get(client, "/api/runs", 503)["error"]


def test_a_failure_of_ours_is_logged_and_one_line(
    store: Store, live: StillLive, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    live.status = fail  # type: ignore[method-assign]
    with asking(create_app(ApiContext(store, live, settings)), HOST) as client:
        assert "failed on this request (ZeroDivisionError)" in get(client, "/api/collector", 500)["error"]
    assert "GET /api/collector failed" in caplog.text


# -- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:5570", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:5570", True),
        ("10.1.2.3:5570", True),
        ("trainer.example:5570", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_the_host_header(host: str, ours: bool) -> None:
    """An attacker can point a name of theirs at our address, but an address is nobody's to point."""
    assert is_our_host(host, {"trainer.example"}) is ours


def test_a_foreign_host_is_refused_everywhere(client: AppClient) -> None:
    for path in ("/api/runs", "/", "/healthz"):
        response = client.get(path, headers={"host": "evil.example"})
        assert response.status_code == 403
        assert "does not go by the name 'evil.example'" in response.json()["error"]
    assert client.get("/api/runs", headers={"host": "Trainer.example:80"}).status_code == 200


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_a_foreign_page_cannot_remove(client: AppClient, origin: str) -> None:
    response = client.delete("/api/runs/run-one?force=true", headers={"origin": origin})
    assert response.status_code == 403
    assert get(client, "/api/runs")["total"] == 1


@pytest.mark.usefixtures("run")
def test_our_own_page_can_remove(client: AppClient) -> None:
    response = client.delete("/api/runs/run-one?force=true", headers={"origin": HOST})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs/nothing", "/static/nothing"])
def test_every_answer_carries_the_security_headers(client: AppClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


# -- the dashboard's files --------------------------------------------------------------------------------


def test_files_are_tagged_by_their_content(
    client: AppClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WEB", tmp_path)
    (tmp_path / "index.html").write_text("<p>one")
    first = client.get("/")
    assert (first.text, first.headers["cache-control"]) == ("<p>one", "no-cache")
    again = client.get("/runs/any", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    (tmp_path / "index.html").write_text("<p>two")
    assert client.get("/", headers={"if-none-match": first.headers["etag"]}).text == "<p>two"


def test_files_outside_the_folder_are_not_served(
    client: AppClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "secret.txt").write_text("no")
    (tmp_path / "web" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "web" / "tool.py").write_text("no")
    monkeypatch.setattr(pages, "WEB", tmp_path / "web")
    for name in ("%2e%2e/secret.txt", "link.txt", "tool.py", "/etc/passwd", "%2Fetc%2Fpasswd"):
        assert client.get(f"/static/{name}").status_code == 404


def test_the_real_page_is_there(client: AppClient) -> None:
    assert "<title>allranks</title>" in client.get("/").text
    assert client.get("/static/main.js").headers["content-type"].startswith("text/javascript")


def test_the_reference_needs_nothing_from_elsewhere(client: AppClient) -> None:
    page = client.get("/docs").text
    assert "GET /api/runs/{id}/metrics" in page
    assert "http://" not in page
    assert "<script" not in page
    assert get(client, "/api/openapi.json")["info"]["title"] == "allranks"


# -- the service ------------------------------------------------------------------------------------------


def test_readiness_has_a_reason(client: AppClient, live: StillLive) -> None:
    assert get(client, "/healthz") == {"status": "ok"}
    assert get(client, "/readyz") == {"ready": True, "reason": ""}
    live.problem = "no space left"
    assert get(client, "/readyz", 503) == {"ready": False, "reason": "no space left"}
    assert get(client, "/healthz") == {"status": "ok"}


def test_the_collector_tells_of_itself(client: AppClient, live: StillLive, store: Store) -> None:
    live.state = {"pid": 1, "uptime": 2.5}
    status = get(client, "/api/collector")
    assert (status["instance"], status["pid"]) == (store.instance.hex(), 1)
    assert status["database"]["bytes"] > 0
    assert status["settings"]["http_port"] == {"value": 5570, "source": "default"}


def test_own_figures_as_openmetrics(client: AppClient, live: StillLive) -> None:
    live.figures = {"events_total": 5.0, 'dropped_total{reason="full"}': 1.0, 'dropped_total{reason="crc"}': 2.0}
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    lines = response.text.splitlines()
    assert lines[-1] == "# EOF"
    assert lines[lines.index("# TYPE allranks_dropped counter") :][:3] == [
        "# TYPE allranks_dropped counter",
        'allranks_dropped_total{reason="full"} 1',
        'allranks_dropped_total{reason="crc"} 2',
    ]
    assert "allranks_viewers 0" in lines


def test_openmetrics_keeps_numbers_whole() -> None:
    assert "x 12345678901\n" in openmetrics({"x": 12345678901.0}, prefix="")


# -- the stream -------------------------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.usefixtures("run")
@pytest.mark.anyio
async def test_a_stream_gives_notes_until_the_hub_closes(store: Store, live: StillLive, settings: Settings) -> None:
    response = await stream(ApiContext(store, live, settings), run="first")
    assert response.media_type == "text/event-stream"
    body = response.body_iterator.__aiter__()
    assert await body.__anext__() == b": allranks\n\n"
    live.hub.publish("runs", "other", {})
    live.hub.publish("metrics", "run-one", {"last_step": 3, "keys": ["loss"]})
    note = await body.__anext__()
    assert note == b'event: metrics\ndata: {"run":"run-one","last_step":3,"keys":["loss"]}\n\n'
    live.hub.close()
    assert [chunk async for chunk in body] == []
    assert live.hub.viewers == 0


@pytest.mark.anyio
async def test_a_silent_stream_is_kept_alive(
    store: Store, live: StillLive, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_collector.api.stream.KEEP_ALIVE_S", 0.01)
    body = (await stream(ApiContext(store, live, settings))).body_iterator.__aiter__()
    await body.__anext__()
    assert await body.__anext__() == b": keep-alive\n\n"
    live.hub.close()
    assert [chunk async for chunk in body] == []


@pytest.mark.anyio
async def test_a_stream_of_no_run_is_404(store: Store, live: StillLive, settings: Settings) -> None:
    transport = httpx.ASGITransport(create_app(ApiContext(store, live, settings)))
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        assert (await client.get("/api/stream?run=nothing")).status_code == 404


@pytest.mark.usefixtures("run")
def test_a_stream_over_a_real_connection(store: Store, live: StillLive, settings: Settings) -> None:
    with serving(create_app(ApiContext(store, live, settings))) as url:
        address = url.removeprefix("http://")
        viewer = http.client.HTTPConnection(address, timeout=60)
        viewer.request("GET", "/api/stream?run=run-one")
        stream = viewer.getresponse()
        assert stream.readline() == b": allranks\n"  # it counts as a viewer from here on
        assert live.hub.viewers == 1
        other = http.client.HTTPConnection(address, timeout=60)
        other.request("DELETE", "/api/runs/run-one?force=true")
        assert other.getresponse().status == 200
        other.close()
        lines = [stream.readline() for _ in range(3)]
        assert lines == [b"\n", b"event: runs\n", b'data: {"run":"run-one","removed":true}\n']
        viewer.close()
        stream.close()
