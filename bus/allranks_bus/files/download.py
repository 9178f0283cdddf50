"""Downloads of stored files: gone on with where they stopped, checked, and there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from allranks_bus.errors import AllranksError
from allranks_bus.http_client import HttpClient, Params, Unreachable

_READ_BYTES = 1024 * 1024
_DIGEST = re.compile("[0-9a-f]{64}")
# How often in a row a connection may break without any byte before it.
_TRIES = 3


class DownloadFailed(AllranksError):
    """What came is not the file, or somebody else is downloading it to the same place."""


@dataclass(frozen=True)
class Content:
    """What is to come: its size, and its SHA-256 in hex."""

    size: int
    digest: str


def content_at(http: HttpClient, path: str, params: Params) -> Content:
    """What a GET of `path` would answer.

    Raises:
        Unreachable, Refused: as `HttpClient.body`.
        DownloadFailed: what answers there does not say what it is.
    """
    with http.body(path, params) as body:
        if body.size is None or not _DIGEST.fullmatch(body.tag):
            raise DownloadFailed("the collector does not say which file it is")
        return Content(body.size, body.tag)


def download_file(
    http: HttpClient,
    path: str,
    params: Params,
    target: Path,
    content: Content,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Makes what GET of `path` answers the file `target`, whose folder is there. What came of a try before is used.

    Args:
        on_progress: told how many bytes are there, now and then.

    Raises:
        Unreachable, Refused: as `HttpClient.body`; what has come stays, for the next try.
        DownloadFailed: what came is something else, and is removed; or another process is at it.
        OSError: the file cannot be written.
    """
    # Beside the target, so that it appears there at once; by its content, so that no other version is gone on with.
    part = target.with_name(f".{content.digest[:24]}.part")
    with _Part(part, content) as file:
        on_progress(file.offset)
        tries = _TRIES
        while file.offset < content.size:
            before = file.offset
            problem: AllranksError = DownloadFailed("the collector sends nothing more of this file: try again")
            try:
                with http.body(path, params, first=file.offset) as body:
                    file.go_back(body.first)
                    for piece in body.pieces:
                        file.write(piece)
                        on_progress(file.offset)
            except Unreachable as error:
                problem = error
            tries = _TRIES if file.offset > before else tries - 1
            if not tries:
                raise problem
        file.finish(target)


def copy_file(
    source: Path, target: Path, content: Content, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Makes a copy of `source`, checked as a download is.

    Raises:
        DownloadFailed: it is something else; or another process is at it.
        OSError: it cannot be read, or the copy not be written.
    """
    with _Part(target.with_name(f".{content.digest[:24]}.part"), content) as file, open(source, "rb") as original:
        file.go_back(0)
        for piece in _pieces(original.fileno()):
            file.write(piece)
            on_progress(file.offset)
        file.finish(target)


def is_there(target: Path, content: Content) -> bool:
    """True where `target` is a file with this content already."""
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_size != content.size:
            return False
        digest = hashlib.sha256()
        for piece in _pieces(fd):
            digest.update(piece)
        return digest.hexdigest() == content.digest
    finally:
        os.close(fd)


class _Part:
    """A file that is not whole yet; what is in it is hashed."""

    def __init__(self, path: Path, content: Content) -> None:
        self.offset = 0
        self._path = path
        self._content = content
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Part:
        # The mode of any file: umask does the rest.
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._fd).st_size > self._content.size:
                self.go_back(0)
            for piece in _pieces(self._fd):
                self._take(piece)
        except BlockingIOError:
            os.close(self._fd)
            raise DownloadFailed(f"another process downloads this file to {self._path.parent}") from None
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            if not os.fstat(self._fd).st_size:
                self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def go_back(self, offset: int) -> None:
        """The next piece is the one at `offset`: where this file ends, or 0."""
        if offset != self.offset or not offset:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self.offset, self._hash = 0, hashlib.sha256()

    def write(self, piece: bytes) -> None:
        if self.offset + len(piece) > self._content.size:
            self._give_up()
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:  # whose it is must be seen: the connection's are others
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._take(piece)

    def finish(self, target: Path) -> None:
        """Makes it the target, where it is what was to come."""
        if self.offset != self._content.size or self._hash.hexdigest() != self._content.digest:
            self._give_up()
        self._path.replace(target)

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.offset += len(piece)

    def _give_up(self) -> None:
        self._path.unlink(missing_ok=True)
        raise DownloadFailed("what came is not the file that is stored: try again")


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _READ_BYTES):
        yield piece
