"""JSON over HTTP with nothing but the standard library: the collector's API as the SDK and the CLI ask it.

Every call has a deadline for the whole of it, not for each read: a server that trickles holds nobody up. Proxies of
the environment are not used: the collector is on this machine or in this cluster.

    AllranksError
    └── HttpError
        ├── Unreachable    nobody answered, or not in time       → start the collector, or correct the address
        └── Refused        the collector answered with an error  → its `status` and message say which
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from allranks_bus.errors import AllranksError, SettingError

DEFAULT_TIMEOUT_S = 30.0
CHUNK_BYTES = 256 * 1024
# A line of an event stream, and what may gather of one event: a guard against a server that is none of ours.
MAX_LINE_BYTES = 1024 * 1024
MAX_EVENT_BYTES = 16 * 1024 * 1024

Params = Mapping[str, "str | int | float | bool | Iterable[str] | None"]


class HttpError(AllranksError):
    """A request to the collector has failed."""


class Unreachable(HttpError):
    """Nobody answered at this address, or not in time, or what answered does not speak HTTP."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f"no collector answers at {url}: {problem}")


class Refused(HttpError):
    """The collector answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event: its type, and its data as JSON."""

    type: str
    data: Any


@dataclass(frozen=True)
class Body:
    """An answer that is read as it comes.

    Attributes:
        first: the offset that it begins at.
        size: of the whole; None where the server does not tell.
        tag: the ETag, without its quotes; empty where there is none.
        pieces: raises as `HttpClient.body` does.
    """

    first: int
    size: int | None
    tag: str
    pieces: Iterator[bytes]


class HttpClient:
    """Asks one server; each call opens a connection of its own, so threads and forked processes may share it.

    Args:
        url: such as http://127.0.0.1:5570; a path in it is put before each call's.
        timeout_s: how long one call may take from beginning to end, unless the call says otherwise.

    Raises:
        SettingError: the URL is none.
    """

    def __init__(self, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            parts, self._host, self._port = urlsplit(""), "", None
        if parts.scheme not in ("http", "https") or not self._host:
            raise SettingError("url", url, "an address such as http://127.0.0.1:5570", "the caller")
        self.url = url.rstrip("/")
        self._scheme = parts.scheme
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s

    def get(self, path: str, params: Params | None = None, *, timeout_s: float | None = None) -> Any:
        """The JSON that GET of this path answers.

        Args:
            path: such as /api/runs; `segment` quotes what comes from elsewhere.
            params: the query; None values are left out, and a list gives its name once per item.
            timeout_s: in place of the client's.

        Raises:
            Unreachable: nobody answered in time.
            Refused: the answer is an error.
        """
        return self._json("GET", path, params, timeout_s)

    def post(self, path: str, params: Params | None = None, *, timeout_s: float | None = None) -> Any:
        """The JSON that POST of this path answers; otherwise as `get`."""
        return self._json("POST", path, params, timeout_s)

    def delete(self, path: str, params: Params | None = None, *, timeout_s: float | None = None) -> Any:
        """The JSON that DELETE of this path answers; otherwise as `get`."""
        return self._json("DELETE", path, params, timeout_s)

    def download(
        self, path: str, target: Path, params: Params | None = None, *, timeout_s: float | None = None
    ) -> int:
        """Write what GET answers to the file `target`, whole or not at all; returns its size in bytes.

        Raises:
            Unreachable: nobody answered in time, or the answer ended early. `target` is as it was.
            Refused: the answer is an error. `target` is as it was.
            OSError: the file cannot be written.
        """
        with self._response("GET", path, params, timeout_s) as response:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            temporary = Path(name)
            try:
                with open(handle, "wb") as file:
                    file.writelines(_chunks(response))
                    size = file.tell()
                # mkstemp's mode is for secrets; a download is a file like any other.
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return size

    @contextlib.contextmanager
    def body(
        self, path: str, params: Params | None = None, *, first: int = 0, silence_s: float = 60.0
    ) -> Generator[Body]:
        """What GET of this path answers, as it comes.

        Args:
            path: such as /api/runs/ID/files/NAME.
            params: as for `get`.
            first: the offset to begin at; a server that cannot do that begins at 0.
            silence_s: how long nothing at all may come; the whole may take any time.

        Raises:
            Unreachable: nobody answered, or was silent for too long, or the answer ended early.
            Refused: the answer is an error.
        """
        headers = {"range": f"bytes={first}-"} if first else {}
        with self._response("GET", path, params, silence_s, whole=False, headers=headers) as response:
            is_part = response.status == http.client.PARTIAL_CONTENT
            tag = response.headers.get("etag", "").strip('"')
            length = None if response.length is None else response.length + (first if is_part else 0)
            yield Body(first if is_part else 0, length, tag, _chunks(response))

    def events(self, path: str, params: Params | None = None, *, silence_s: float = 60.0) -> Generator[ServerEvent]:
        """The server-sent events of this path, one after the other, until the server ends the stream.

        Args:
            path: such as /api/stream.
            params: as for `get`.
            silence_s: how long nothing at all may come; the collector sends a comment every 15 s.

        Raises:
            Unreachable: nobody answered, or was silent for too long, or the connection broke.
            Refused: the answer is an error.
        """
        with self._response("GET", path, params, silence_s, whole=False) as response:
            kind, data, size = "message", list[str](), 0
            while True:
                line = response.readline(MAX_LINE_BYTES)
                size += len(line)
                if not line:
                    return
                if size > MAX_EVENT_BYTES or not line.endswith(b"\n"):
                    raise Unreachable(self.url, "its stream is not one of server-sent events")
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                name, _, value = text.partition(":")
                value = value.removeprefix(" ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data.append(value)
                elif not text:
                    if data:
                        yield ServerEvent(kind, json.loads("\n".join(data)))
                    kind, data, size = "message", [], 0

    def _json(self, method: str, path: str, params: Params | None, timeout_s: float | None) -> Any:
        with self._response(method, path, params, timeout_s) as response:
            body = b"".join(_chunks(response))
        try:
            return json.loads(body)
        except ValueError:
            raise Unreachable(self.url, "the answer is not JSON, so something else answers there") from None

    @contextlib.contextmanager
    def _response(
        self,
        method: str,
        path: str,
        params: Params | None,
        timeout_s: float | None,
        *,
        whole: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Generator[http.client.HTTPResponse]:
        """The answer, while its body is read; `whole` makes the timeout one for all, not for each read."""
        timeout = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout
        kind = http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout)
        try:
            connection.connect()
            with _cut_off(connection.sock, deadline) if whole else contextlib.nullcontext():
                connection.request(
                    method, self._prefix + path + _query(params), headers={"accept": "*/*", **(headers or {})}
                )
                response = connection.getresponse()
                if response.status >= 400:
                    raise Refused(response.status, _message(response))
                yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # not of the connection: a file that cannot be written
            late = whole and time.monotonic() >= deadline
            raise Unreachable(self.url, _problem(TimeoutError() if late else error, timeout)) from error
        finally:
            connection.close()


@contextlib.contextmanager
def _cut_off(connection: socket.socket, deadline: float) -> Generator[None]:
    """Ends the connection at the deadline, whatever reads from it then: a trickle resets a socket's own timeout.

    Raises:
        TimeoutError: the deadline has passed before the end of the block.
    """

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if time.monotonic() >= deadline:  # an answer without a length looks complete when it is cut
        raise TimeoutError


def _chunks(response: http.client.HTTPResponse) -> Generator[bytes]:
    """The body in pieces, as they come."""
    missing = response.length
    while chunk := response.read1(CHUNK_BYTES):
        missing = None if missing is None else missing - len(chunk)
        yield chunk
    if missing:
        raise http.client.IncompleteRead(b"", missing)


def segment(text: str) -> str:
    """`text` as one segment of a path, whatever is in it."""
    return quote(text, safe="")


def _query(params: Params | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None:
            continue
        values = [value] if isinstance(value, (str, int, float)) else value
        pairs += [(name, str(item).lower() if isinstance(item, bool) else str(item)) for item in values]
    return "?" + urlencode(pairs) if pairs else ""


def _message(response: http.client.HTTPResponse) -> str:
    """What the collector says in `{"error": …}`, else what HTTP says."""
    with contextlib.suppress(ValueError, OSError, http.client.HTTPException):
        body = json.loads(response.read(MAX_LINE_BYTES))
        if isinstance(body, dict) and isinstance(body.get("error"), str):
            return str(body["error"])
    return f"HTTP {response.status} {response.reason}"


def _problem(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (allranks up starts one)"
    if isinstance(error, socket.gaierror):
        return "there is no host of this name"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ended early"
    if isinstance(error, (http.client.HTTPException, ValueError)):
        return f"it does not speak HTTP ({type(error).__name__})"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
