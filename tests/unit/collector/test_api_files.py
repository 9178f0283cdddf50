"""Files over HTTP: listed, downloaded whole and in parts, and never a page of ours."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.serving import AppClient, asking

from allranks_collector.api import ApiContext, create_app, models
from allranks_collector.files import FileStore
from allranks_collector.settings import Settings
from allranks_collector.testing import T0_NS, DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

    from allranks_collector.store import Store

T0 = T0_NS / 1e9
HTML = b"<script>alert(1)</script>"


@pytest.fixture
def live() -> StillLive:
    return StillLive()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")


@pytest.fixture
def client(store: Store, live: StillLive, settings: Settings) -> Iterator[AppClient]:
    with asking(create_app(ApiContext(store, live, settings)), "http://127.0.0.1:5570") as client:
        yield client


@pytest.fixture
def keep(build: DatabaseBuilder, settings: Settings) -> Callable[..., str]:
    """Lists a file and puts its content into its place; gives the digest."""
    files = FileStore(settings.files)

    def keep(run: int, name: str, body: bytes, **more: Any) -> str:
        digest = hashlib.sha256(body).hexdigest()
        partial = files.open(bytes(16), len(body))
        partial.write(body)
        partial.seal()
        files.place({bytes(16): digest})
        build.file(run, name, digest, len(body), **more)
        return digest

    return keep


def test_the_newest_version_of_each_file_is_listed(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str], live: StillLive
) -> None:
    run = build.run("run-one")
    keep(run, "a.ckpt", b"old", rank=3)
    new = keep(run, "a.ckpt", b"newer", modified_s=2, stored_s=3)
    other = keep(run, "a.ckpt", b"other", host="host-b", rank=1)
    keep(build.run("run-two"), "b", b"elsewhere")
    live.files["run-one"] = [{"name": "c", "host": "host-a", "size": 10, "offset": 4}]
    got = client.get("/api/runs/run-one/files").json()
    assert got == {
        "files": [
            {"name": "a.ckpt", "host": "host-a", "rank": None, "size": 5, "digest": new}
            | {"modified": T0 + 2, "stored": T0 + 3, "versions": 2},
            {"name": "a.ckpt", "host": "host-b", "rank": 1, "size": 5, "digest": other}
            | {"modified": T0, "stored": T0, "versions": 1},
        ],
        "arriving": [{"name": "c", "host": "host-a", "size": 10, "offset": 4}],
        "total_bytes": 10,
    }
    assert models.FilesAnswer.model_validate(got).model_dump(exclude_unset=True) == got
    assert client.get("/api/runs/nobody/files").status_code == 404


def test_a_run_without_files_has_an_empty_list(client: AppClient, build: DatabaseBuilder) -> None:
    build.run("run-one")
    assert client.get("/api/runs/run-one/files").json() == {"files": [], "arriving": [], "total_bytes": 0}


def test_a_file_is_downloaded_as_it_is(client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]) -> None:
    digest = keep(build.run("run-one", name="sweep/3"), "out/ä b.html", HTML)
    for run in ("run-one", "run-o", "sweep%2F3"):
        response = client.get(f"/api/runs/{run}/files/out/%C3%A4%20b.html")
        assert (response.status_code, response.content) == (200, HTML)
    assert response.headers["etag"] == f'"{digest}"'
    assert response.headers["content-length"] == str(len(HTML))


def test_a_file_is_no_page_of_ours(client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]) -> None:
    """Whatever is in it and whatever it is called."""
    keep(build.run("run-one"), 'x"; y\u2028.html', HTML)
    headers = client.get("/api/runs/run-one/files/x%22%3B%20y%E2%80%A8.html").headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment; filename*=utf-8''x%22%3B%20y%E2%80%A8.html"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_part_is_given_to_who_asks_for_it(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]
) -> None:
    digest = keep(build.run("run-one"), "a", b"0123456789")
    path = "/api/runs/run-one/files/a"
    part = client.get(path, headers={"range": "bytes=4-", "if-range": f'"{digest}"'})
    assert (part.status_code, part.content) == (206, b"456789")
    assert part.headers["content-range"] == "bytes 4-9/10"
    # Of another version the whole is given.
    other = client.get(path, headers={"range": "bytes=4-", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, b"0123456789")
    assert client.get(path, headers={"range": "bytes=10-"}).status_code == 416


def test_who_has_it_is_not_given_it_again(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]
) -> None:
    digest = keep(build.run("run-one"), "a", b"abc")
    same = client.get("/api/runs/run-one/files/a", headers={"if-none-match": f'"{digest}"'})
    assert (same.status_code, same.content) == (304, b"")


def test_an_older_version_is_asked_for_by_its_digest(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]
) -> None:
    run = build.run("run-one")
    old = keep(run, "a", b"old")
    keep(run, "a", b"newer")
    path = "/api/runs/run-one/files/a"
    assert client.get(path).content == b"newer"
    assert client.get(path, params={"digest": old}).content == b"old"
    assert client.get(path, params={"digest": "f" * 64}).status_code == 404


def test_where_hosts_differ_one_must_be_named(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str]
) -> None:
    run = build.run("run-one")
    for host, body in (("host-a", b"a"), ("host-b", b"b")):
        keep(run, "log.txt", body, host=host)
        keep(run, "same.txt", b"same", host=host)
    path = "/api/runs/run-one/files/log.txt"
    refused = client.get(path)
    assert refused.status_code == 409
    assert refused.json() == {"error": "2 hosts have a file 'log.txt': say which host is meant (host-a, host-b)"}
    assert client.get(path, params={"host": "host-b"}).content == b"b"
    assert client.get(path, params={"host": "host-c"}).status_code == 404
    assert client.get("/api/runs/run-one/files/same.txt").content == b"same"


@pytest.mark.parametrize(
    "name", ["metrics", "files", "x/files", "x/files/y", "files/files/files", "ranks/files/metrics", "export"]
)
def test_a_file_may_be_called_as_a_question_is(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str], name: str
) -> None:
    keep(build.run("run-one"), name, name.encode())
    assert client.get(f"/api/runs/run-one/files/{name}").content == name.encode()
    assert [file["name"] for file in client.get("/api/runs/run-one/files").json()["files"]] == [name]


@pytest.mark.parametrize("name", ["nothing", "", "../../../etc/passwd", "%2e%2e/%2e%2e/test.duckdb", "/etc/passwd"])
def test_what_the_run_has_not_sent_is_404(client: AppClient, build: DatabaseBuilder, name: str) -> None:
    build.run("run-one")
    response = client.get(f"/api/runs/run-one/files/{name}")
    assert response.status_code == 404
    assert list(response.json()) == ["error"]


def test_a_content_that_somebody_removed_is_404_and_says_so(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str], settings: Settings
) -> None:
    digest = keep(build.run("run-one"), "a", b"abc")
    FileStore(settings.files).blob(digest).unlink()
    response = client.get("/api/runs/run-one/files/a")
    assert response.status_code == 404
    assert "the content of 'a' is not in" in response.json()["error"]


def test_the_reference_tells_of_files(client: AppClient) -> None:
    page = client.get("/docs").text
    assert "GET /api/runs/{id}/files/{name}" in page


@pytest.mark.parametrize("asked", [{}, {"range": "bytes=5-"}])
def test_a_download_goes_on_where_newer_versions_take_its_place(
    store: Store,
    live: StillLive,
    build: DatabaseBuilder,
    keep: Callable[..., str],
    settings: Settings,
    asked: dict[str, str],
) -> None:
    body = bytes(range(256)) * 10_000
    blob = FileStore(settings.files).blob(keep(build.run("run-one"), "a", body))
    app = create_app(ApiContext(store, live, settings))

    async def removing(scope: Scope, receive: Receive, send: Send) -> None:
        async def remove_and_send(message: Message) -> None:
            blob.unlink(missing_ok=True)
            await send(message)

        await app(scope, receive, remove_and_send)

    with asking(removing, "http://127.0.0.1:5570") as client:
        assert client.get("/api/runs/run-one/files/a", headers=asked).content == body[5 if asked else 0 :]
    assert not blob.exists()


def test_a_version_that_is_replaced_before_it_is_opened_is_looked_for_again(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build.run("run-one")
    keep(run, "a", b"old")
    blob = FileStore.blob

    def replaced(files: FileStore, digest: str) -> Path:
        monkeypatch.undo()
        blob(files, digest).unlink()
        keep(run, "a", b"newer")
        return blob(files, digest)

    monkeypatch.setattr(FileStore, "blob", replaced)
    assert client.get("/api/runs/run-one/files/a").content == b"newer"


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=0-1,4-5",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 12_000, 2)),
        "bytes=" + "1" * 60_000,
        "lines=1-",
    ],
    ids=["two", "thousands", "digits", "unknown"],
)
def test_of_anything_but_one_range_the_whole_is_given(
    client: AppClient, build: DatabaseBuilder, keep: Callable[..., str], ranges: str
) -> None:
    """To make out many of them may take as long as there are bytes in the header, squared."""
    keep(build.run("run-one"), "a", b"0123456789")
    response = client.get("/api/runs/run-one/files/a", headers={"range": ranges})
    assert (response.status_code, response.content) == (200, b"0123456789")
