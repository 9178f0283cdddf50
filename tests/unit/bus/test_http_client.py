"""The HTTP client answers with JSON, or says in one line why not, and never later than its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from tests.unit.serving import serving

from allranks_bus.errors import SettingError
from allranks_bus.http_client import HttpClient, Params, Refused, ServerEvent, Unreachable, segment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path

app = FastAPI()


@app.api_route("/echo/{rest:path}", methods=["GET", "DELETE"])
def echo(request: Request) -> dict[str, Any]:
    path = request.scope["raw_path"].decode()
    return {"method": request.method, "path": path, "params": request.query_params.multi_items()}


@app.get("/error")
def error() -> JSONResponse:
    return JSONResponse({"error": "no such run"}, 404)


@app.get("/odd")
def odd() -> PlainTextResponse:
    return PlainTextResponse("<h1>teapot</h1>", 418)


@app.get("/text")
def text() -> PlainTextResponse:
    return PlainTextResponse("hello")


@app.get("/file")
def file() -> Response:
    return Response(bytes(range(256)) * 4096, media_type="application/octet-stream")


@app.get("/events")
async def events() -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b': hello\n\nevent: runs\ndata: {"run":'
        await asyncio.sleep(0)
        yield b' "a"}\n\n: keep-alive\n\ndata: [1,\ndata: 2]\r\n\r\nevent: lost\n\n'

    return StreamingResponse(body(), media_type="text/event-stream")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def client(url: str) -> HttpClient:
    return HttpClient(url, timeout_s=60)


@contextlib.contextmanager
def server_that_sends(*pieces: bytes, pause_s: float = 0.0, ends: bool = True) -> Generator[str]:
    """A server that takes one connection and sends these bytes, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                    over.wait(pause_s)
                if not ends:
                    over.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join(60)


# -- asking -----------------------------------------------------------------------------------------------


def test_the_query_is_put_together(client: HttpClient) -> None:
    params: Params = {"key": ["a/b", "c&d"], "limit": 5, "force": True, "none": None, "x": "ä"}
    assert client.get("/echo/x", params)["params"] == [
        ["key", "a/b"],
        ["key", "c&d"],
        ["limit", "5"],
        ["force", "true"],
        ["x", "ä"],
    ]


def test_a_name_from_elsewhere_stays_one_segment(client: HttpClient) -> None:
    assert client.get("/echo/" + segment("a/b?c#d é"))["path"] == "/echo/a%2Fb%3Fc%23d%20%C3%A9"


def test_the_urls_own_path_comes_first(url: str) -> None:
    assert HttpClient(url + "/echo/").get("/runs")["path"] == "/echo/runs"


def test_deleting(client: HttpClient) -> None:
    assert client.delete("/echo/x")["method"] == "DELETE"


def test_a_proxy_of_the_environment_is_not_used(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert client.get("/echo/x")["method"] == "GET"


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status", "words"), [("/error", 404, "no such run"), ("/odd", 418, "HTTP 418")])
def test_an_error_carries_status_and_message(client: HttpClient, path: str, status: int, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        client.get(path)
    assert caught.value.status == status


def test_an_answer_that_is_not_json(client: HttpClient) -> None:
    with pytest.raises(Unreachable, match="not JSON"):
        client.get("/text")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"no collector answers at {url}: nothing listens there"):
        HttpClient(url).get("/")


@pytest.mark.parametrize("url", ["127.0.0.1:5570", "tcp://127.0.0.1:5571", "http://", "http://x:port", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(SettingError, match="expected an address such as"):
        HttpClient(url)


def test_something_else_answers() -> None:
    with (
        server_that_sends(b"SSH-2.0-OpenSSH_9.2\r\n") as url,
        pytest.raises(Unreachable, match="does not speak HTTP"),
    ):
        HttpClient(url).get("/")


@pytest.mark.parametrize(
    "pieces",
    [
        (b"",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",) + (b"1\r\n \r\n",) * 200,
        tuple(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200),
        (b"HTTP/1.1 200 OK\r\n\r\n[1, 2]",),
    ],
    ids=["silent", "stuck", "trickling", "trickling headers", "without a length"],
)
def test_the_deadline_is_for_the_whole_call(pieces: tuple[bytes, ...]) -> None:
    with server_that_sends(*pieces, pause_s=0.05, ends=False) as url:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            HttpClient(url).get("/", timeout_s=0.3)
        assert time.monotonic() - begun < 20


def test_an_answer_that_ends_early() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1,"
    with server_that_sends(half) as url, pytest.raises(Unreachable, match="ended early"):
        HttpClient(url).get("/")


# -- files ------------------------------------------------------------------------------------------------


def test_a_download_is_the_whole_file(client: HttpClient, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    assert client.download("/file", target) == 256 * 4096
    assert target.read_bytes() == bytes(range(256)) * 4096
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_download_that_fails_leaves_the_old_file(client: HttpClient, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(Refused):
        client.download("/error", target)
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnew"
    with server_that_sends(half) as url, pytest.raises(Unreachable, match="ended early"):
        HttpClient(url).download("/", target)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_file_that_cannot_be_written_is_no_matter_of_the_connection(client: HttpClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.download("/file", tmp_path / "missing" / "file")


# -- server-sent events -----------------------------------------------------------------------------------


def test_events_come_one_by_one_and_comments_do_not(client: HttpClient) -> None:
    assert list(client.events("/events")) == [ServerEvent("runs", {"run": "a"}), ServerEvent("message", [1, 2])]


def test_a_stream_may_be_left_at_any_time(client: HttpClient) -> None:
    stream = client.events("/events")
    assert next(stream).type == "runs"
    stream.close()


def test_a_silent_stream_ends_with_an_error() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\n"
    with server_that_sends(head, ends=False) as url, pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
        list(HttpClient(url).events("/", silence_s=0.2))


def test_a_stream_of_something_else_is_not_gathered_without_end() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * 1024 * 1024)
    with server_that_sends(head) as url, pytest.raises(Unreachable, match="not one of server-sent events"):
        list(HttpClient(url).events("/"))
