"""Downloads: there whole or not at all, gone on with where they stopped, and never something else."""

from __future__ import annotations

import fcntl
import hashlib
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from allranks_bus.files.download import Content, DownloadFailed, content_at, copy_file, download_file, is_there
from allranks_bus.http_client import HttpClient, Refused, Unreachable

BODY = random.Random(1).randbytes(300_000)
CONTENT = Content(len(BODY), hashlib.sha256(BODY).hexdigest())


@dataclass
class Server:
    """What the server does: it sends `body`, in answers of at most `piece` bytes, and then hangs up."""

    http: HttpClient
    body: bytes = BODY
    piece: int = len(BODY)
    knows_ranges: bool = True
    status: int = 200
    tag: str = f'"{CONTENT.digest}"'
    asked: list[str | None] = field(default_factory=list[str | None])


@pytest.fixture
def server() -> Generator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("range")
            state.asked.append(wanted)
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.knows_ranges else 0
            status = state.status if state.status != 200 else (206 if first else 200)
            rest = state.body[first:]
            self.send_response(status)
            self.send_header("content-length", str(len(rest)))
            self.send_header("etag", state.tag)
            self.end_headers()
            self.wfile.write(rest[: state.piece])

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quietly."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        state = Server(HttpClient(f"http://127.0.0.1:{listener.server_port}"))
        thread = Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield state
        listener.shutdown()
        thread.join()


def _fetch(server: Server, target: Path, content: Content = CONTENT, **more: Any) -> None:
    download_file(server.http, "/f", {}, target, content, **more)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_its_progress(server: Server, tmp_path: Path) -> None:
    told: list[int] = []
    _fetch(server, tmp_path / "a", on_progress=told.append)
    assert (tmp_path / "a").read_bytes() == BODY
    assert (told[0], told[-1]) == (0, len(BODY))
    assert told == sorted(told)
    assert _names(tmp_path) == ["a"]


def test_an_empty_file_needs_no_answer(server: Server, tmp_path: Path) -> None:
    _fetch(server, tmp_path / "a", Content(0, hashlib.sha256().hexdigest()))
    assert (tmp_path / "a").read_bytes() == b""
    assert server.asked == []


def test_a_connection_that_breaks_is_made_again_for_the_rest(server: Server, tmp_path: Path) -> None:
    server.piece = 70_000
    _fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.asked == [None, *(f"bytes={first}-" for first in range(70_000, 300_000, 70_000))]


def test_what_came_of_a_try_before_is_used(server: Server, tmp_path: Path) -> None:
    server.piece = 0
    (tmp_path / f".{CONTENT.digest[:24]}.part").write_bytes(BODY[:100_000])
    with pytest.raises(Unreachable, match="ended early"):
        _fetch(server, tmp_path / "a")
    assert len(server.asked) == 3
    server.piece = len(BODY)
    _fetch(server, tmp_path / "a")
    assert server.asked[-1] == "bytes=100000-"
    assert (tmp_path / "a").read_bytes() == BODY
    assert _names(tmp_path) == ["a"]


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / f".{CONTENT.digest[:24]}.part").write_bytes(BODY[:100_000])
    _fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY[:-1] + b"x", BODY + b"more"])
def test_what_is_something_else_does_not_appear(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    server.piece = len(body)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(DownloadFailed, match="not the file"):
        _fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


def test_a_server_that_sends_nothing_is_given_up(server: Server, tmp_path: Path) -> None:
    server.body = b""
    with pytest.raises(DownloadFailed, match="nothing more"):
        _fetch(server, tmp_path / "a")
    assert _names(tmp_path) == []


def test_a_refusal_is_passed_on(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(Refused):
        _fetch(server, tmp_path / "a")
    assert _names(tmp_path) == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _fetch(server, tmp_path / "none" / "a")


def test_two_do_not_write_the_same_file(server: Server, tmp_path: Path) -> None:
    with open(tmp_path / f".{CONTENT.digest[:24]}.part", "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match="another process"):
            _fetch(server, tmp_path / "a")


def test_an_answer_tells_what_it_is(server: Server) -> None:
    assert content_at(server.http, "/f", {}) == CONTENT
    server.tag = '"of something else"'
    with pytest.raises(DownloadFailed, match="does not say which file it is"):
        content_at(server.http, "/f", {})


def test_what_is_there_is_known(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    (tmp_path / "other").write_bytes(BODY[::-1])
    (tmp_path / "link").symlink_to("a")
    there = {name: is_there(tmp_path / name, CONTENT) for name in ("a", "other", "link", "none", ".")}
    assert there == {"a": True, "other": False, "link": False, "none": False, ".": False}


def test_a_copy_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(BODY)
    copy_file(tmp_path / "source", tmp_path / "a", CONTENT)
    assert (tmp_path / "a").read_bytes() == BODY
    (tmp_path / "source").write_bytes(BODY[:-1])
    with pytest.raises(DownloadFailed):
        copy_file(tmp_path / "source", tmp_path / "b", CONTENT)
    assert _names(tmp_path) == ["a", "source"]
