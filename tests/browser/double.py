"""A stand-in for the collector's HTTP side: the real page, and an API whose answers the test writes.

For what a real collector cannot be brought to show on demand: a thousand ranks, hostile names, a connection that
breaks.
"""

from __future__ import annotations

import json
import mimetypes
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.browser.log_double import Logs
from tests.support.ports import free_port

import allranks_collector

if TYPE_CHECKING:
    from types import TracebackType

WEB = Path(allranks_collector.__file__).parent / "web"
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'"
CREATED = 1_700_000_000.0
HANG_UP = ""


def run(run_id: str, **fields: Any) -> dict[str, Any]:
    """A RUN as the API gives it."""
    values: dict[str, Any] = {
        "id": run_id, "project": "p", "group": None, "name": None, "state": "running", "notes": None, "tags": [],
        "config": {}, "summary": {}, "world_size": 2, "attempt": 1, "ranks_seen": 2, "created_at": CREATED,
        "last_seen": CREATED + 60, "last_step": 99, "ended_at": None,
        "attempts": [{"attempt": 1, "started_at": CREATED, "launch": "l"}], "definitions": [],
    }  # fmt: skip
    return values | fields


def rank(number: int, state: str = "running", **fields: Any) -> dict[str, Any]:
    """A RANK as the API gives it."""
    values: dict[str, Any] = {
        "rank": number, "attempt": 1, "local_rank": number % 8, "host": f"node-{number // 8}", "pid": 1000 + number,
        "state": state, "last_step": 99, "last_seen": CREATED + 60, "started_at": CREATED, "ended_at": None,
        "exit_code": None, "signal": None, "reason": None, "exception": None, "dropped": 0, "events": 100,
        "children": [],
    }  # fmt: skip
    return values | fields


def key(name: str, kind: str = "metric", **fields: Any) -> dict[str, Any]:
    """A key as the API gives it."""
    values: dict[str, Any] = {
        "key": name, "kind": kind, "ranks": 2, "count": 200, "last_step": 99, "last": 1.0, "min": 0.0, "max": 1.0,
        "step_metric": None, "summary": "last",
    }  # fmt: skip
    return values | fields


def file(name: str, size: int = 1000, **fields: Any) -> dict[str, Any]:
    """A file as the API gives it."""
    values: dict[str, Any] = {
        "name": name, "host": "node-0", "rank": 0, "size": size, "digest": "ab" * 32, "modified": CREATED,
        "stored": CREATED, "versions": 1,
    }  # fmt: skip
    return values | fields


def stack_group(where: str, ranks: list[int], **fields: Any) -> dict[str, Any]:
    """A group of ranks that stand at a place, such as `wait train.py:88`, as the API gives it."""
    wait, _, place = where.partition(" ")
    file, _, line = place.partition(":")
    values: dict[str, Any] = {
        "text": f"{len(ranks)} in {where}", "where": where, "ranks": ranks, "answered": True, "wait": wait,
        "function": "step", "file": file, "line": int(line or 0),
    }  # fmt: skip
    return values | fields


def stack(number: int, *frames: tuple[str, int, str], **fields: Any) -> dict[str, Any]:
    """A rank's stack as the API gives it: the frames of its main thread, innermost first."""
    main = {"name": "MainThread", "id": 1, "main": True, "frames": frames}
    return {"rank": number, "how": "asked", "reason": None, "threads": [main] if frames else []} | fields


def _nothing_yet() -> dict[str, dict[str, Any]]:
    """What the API says of the health of a run of which nothing is known."""
    parts = ("total", "productive", "init", "stalled", "detection", "restart", "recomputation")
    return {
        "stacks": {"asked_at": None, "text": "", "groups": [], "ranks": []},
        "timeline": {"from_ns": 0, "until_ns": 0, "states": [], "ranks": []},
        "attempts": {"attempts": [], "goodput": {"fraction": None} | {f"{part}_s": 0.0 for part in parts}},
        "stragglers": {"attempt": 1, "measured": 0, "seconds": 0.0, "lost_s": 0.0, "rank_hours": 0.0, "ranks": []}
        | {"hosts": []},
        "differences": {"attempt": 1, "ranks": 2, "told": 0, "differences": [], "diverged": [], "compared": []},
    }


@dataclass
class Asked:
    """One API request: its path below /api, and its parameters."""

    path: str
    params: dict[str, list[str]]


@dataclass
class State:
    """What the double says. Tests change it at any time."""

    runs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ranks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    keys: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    objects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    files: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    arriving: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    logs: Logs = field(default_factory=Logs)
    why: dict[str, Any] | None = None
    health: dict[str, dict[str, Any]] = field(default_factory=_nothing_yet)
    # What ranks answer who are asked where they stand; None: none of them is there.
    answer: dict[str, Any] | None = None
    steps: int = 100
    nonfinite_at: int | None = None
    trouble: bool = False


class CollectorDouble:
    """Serves on a loopback port for as long as the `with` block lasts."""

    def __init__(self) -> None:
        self.state = State()
        self.asked: list[Asked] = []
        self._streams: list[queue.Queue[str]] = []
        self._server: ThreadingHTTPServer | None = None
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens, on the same port each time."""
        double = self

        class Handler(_Handler):
            collector = double

        self._server = _Server(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Hangs up on everybody and stops listening."""
        if self._server is None:
            return
        for stream in tuple(self._streams):  # it loses those that end meanwhile
            stream.put(HANG_UP)
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def emit(self, topic: str, **data: Any) -> None:
        """Sends a server-sent event to every viewer."""
        for stream in tuple(self._streams):
            stream.put(f"event: {topic}\ndata: {json.dumps(data)}\n\n")

    def asked_for(self, path: str) -> list[Asked]:
        """The requests so far whose path ends so."""
        return [asked for asked in self.asked if asked.path.endswith(path)]

    def __enter__(self) -> CollectorDouble:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, path: str, params: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Status and body of an API call."""
        self.asked.append(Asked(path, params))
        state = self.state
        if state.trouble:
            return 500, {"error": "the collector failed on this request"}
        if path == "/runs":
            return 200, {"runs": state.runs, "total": len(state.runs)}
        run_id, _, what = path.removeprefix("/runs/").partition("/")
        found = next((run for run in state.runs if run["id"] == unquote(run_id)), None)
        if found is None:
            return 404, {"error": f"no run {run_id}"}
        lists = {"ranks": state.ranks, "keys": state.keys, "objects": state.objects, "events": state.events}
        if what in lists:
            return 200, {what: lists[what]}
        if what == "files":
            total = sum(file["size"] for file in state.files)
            return 200, {"files": state.files, "arriving": state.arriving, "total_bytes": total}
        if what == "why":
            return (200, state.why) if state.why else (404, {"error": "nothing is known"})
        if what == "stacks":
            return 200, self._stacks(params)
        if what in state.health:
            return 200, state.health[what]
        if what == "logs":
            return state.logs.answer(params)
        if what in ("metrics", "system"):
            return 200, {"series": self._series(params), "buckets": 100, "x": "step"}
        return 200, found

    def ask(self, path: str, params: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Ranks are asked: what they answer is the state's `answer`, if it has any."""
        if self.state.answer is None:
            return 409, {"error": "no rank of the run is there to be asked"}
        self.state.health["stacks"] = self.state.answer
        return self.answer(path, params)

    def _stacks(self, params: dict[str, list[str]]) -> dict[str, Any]:
        stacks = self.state.health["stacks"]
        ranks = stacks["ranks"]
        if "ranks" in params:
            ranks = [rank for rank in ranks if rank["rank"] in _span(params["ranks"][0])]
        if params.get("threads") == ["false"]:
            ranks = [rank | {"threads": []} for rank in ranks]
        return stacks | {"ranks": ranks}

    def _series(self, params: dict[str, list[str]]) -> list[dict[str, Any]]:
        low = int(params.get("step_min", ["0"])[0])
        high = int(params.get("step_max", [str(self.state.steps - 1)])[0])
        steps = list(range(max(0, low), min(high, self.state.steps - 1) + 1))
        columns: dict[str, Any] = {
            "x": steps,
            "step": steps,
            "count": [1] * len(steps),
            "nonfinite": [int(step == self.state.nonfinite_at) for step in steps],
        }
        values = [None if step == self.state.nonfinite_at else step / 10 for step in steps]
        lowest = [None if value is None else value - 1 for value in values]
        highest = [None if value is None else value + 1 for value in values]
        if params.get("reduce") == ["ranks"]:
            columns |= {"mean": values, "min": lowest, "max": highest}
            columns |= {"min_rank": [1] * len(steps), "max_rank": [0] * len(steps)}
            return [{"key": name, "attempt": 1, **columns} for name in params.get("key", [])]
        columns |= {"value": values, "min": lowest, "max": highest, "time": [CREATED + step for step in steps]}
        ranks = [number for part in params["ranks"][0].split(",") for number in _span(part)]
        return [{"key": name, "rank": n, "attempt": 1, **columns} for name in params.get("key", []) for n in ranks]

    def open_stream(self) -> queue.Queue[str]:
        stream: queue.Queue[str] = queue.Queue()
        self._streams.append(stream)
        return stream

    def close_stream(self, stream: queue.Queue[str]) -> None:
        self._streams.remove(stream)


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Streams end when they are hung up on; a browser's idle connections must not hold the test up.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle of an answer is no failure of the test's."""


class _Handler(BaseHTTPRequestHandler):
    collector: CollectorDouble

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/api/stream":
            self._stream()
        elif url.path.startswith("/api/"):
            status, body = self.collector.answer(url.path.removeprefix("/api"), parse_qs(url.query))
            self._send(status, "application/json", json.dumps(body).encode())
        elif url.path.startswith("/static/"):
            file = WEB / url.path.removeprefix("/static/")
            self._send(200, mimetypes.guess_type(file.name)[0] or "text/plain", file.read_bytes())
        else:
            self._send(200, "text/html; charset=utf-8", (WEB / "index.html").read_bytes())

    def do_POST(self) -> None:
        """Ranks are asked where they stand."""
        url = urlsplit(self.path)
        status, body = self.collector.ask(url.path.removeprefix("/api"), parse_qs(url.query))
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        stream = self.collector.open_stream()
        try:
            self.wfile.write(b": hello\n\n")
            while (event := stream.get()) != HANG_UP:
                self.wfile.write(event.encode())
        finally:
            self.collector.close_stream(stream)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are kept in `asked`, not printed."""
