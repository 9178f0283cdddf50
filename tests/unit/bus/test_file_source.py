"""Files to be sent: only regular ones of this user inside their folder, and only as they were at one moment."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from allranks_bus.files.source import (
    SMALL_BYTES,
    CannotSend,
    FileChanged,
    Source,
    State,
    Writers,
    open_file,
    resolve,
    state_of,
    writers_of,
)

ME = os.getuid()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def _file(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _state(path: Path) -> State:
    return state_of(path.stat())


def _source(path: Path, root: Path) -> Source:
    return Source(str(path), str(root), ME, _state(path))


# -- what may be opened --------------------------------------------------------------------------------------------


def test_a_regular_file_inside_the_folder_is_opened(root: Path) -> None:
    fd = open_file(str(_file(root / "a" / "b")), str(root), ME)
    try:
        assert os.read(fd, 100) == b"content"
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        os.close(fd)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [_fifo, _socket, Path.mkdir])
def test_what_is_no_regular_file_is_not_read(root: Path, make: Callable[[Path], None]) -> None:
    """And nothing waits: a fifo without a writer would."""
    path = root / "odd"
    make(path)
    with pytest.raises((CannotSend, OSError)):
        open_file(str(path), str(root), ME)


def test_the_file_of_another_user_is_not_read(root: Path) -> None:
    with pytest.raises(CannotSend, match="another user"):
        open_file(str(_file(root / "a")), str(root), ME + 1)


@pytest.mark.parametrize("link", ["run/link", "run/folder/secret"])
def test_nothing_outside_the_folder_is_read(root: Path, link: str) -> None:
    """Neither through a link, nor through a folder that is one."""
    secret = _file(root.parent / "secrets" / "secret")
    path = root.parent / link
    if path.parent == root:
        path.symlink_to(secret)
    else:
        path.parent.symlink_to(secret.parent)
    with pytest.raises((CannotSend, FileChanged)):
        open_file(str(path), str(root), ME)


def test_a_folder_whose_name_begins_alike_is_outside(root: Path) -> None:
    path = _file(root.parent / "run-2" / "a")
    with pytest.raises(CannotSend, match="leads out"):
        open_file(str(path), str(root), ME)


def test_a_link_inside_the_folder_means_its_target(root: Path) -> None:
    target = _file(root / "epoch=1.ckpt")
    (root / "last.ckpt").symlink_to("epoch=1.ckpt")
    assert resolve(str(root / "last.ckpt"), str(root)) == str(target)


def test_a_link_that_leads_out_is_refused_by_name(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")
    with pytest.raises(CannotSend, match=r"link leads out of .*run, to /etc/passwd"):
        resolve(str(root / "link"), str(root))


# -- one state of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, SMALL_BYTES, SMALL_BYTES + 10])
def test_a_source_has_the_bytes_of_the_file(root: Path, size: int) -> None:
    content = os.urandom(size)
    source = _source(_file(root / "a", content), root)
    half = size // 2
    assert source.read(0, half) + source.read(half, size - half) == content
    source.check()
    source.close()


def test_a_small_file_is_as_it_was_when_it_was_found_whatever_comes(root: Path) -> None:
    """It has been read whole by then."""
    path = _file(root / "a", b"old")
    source = _source(path, root)
    path.write_bytes(b"newer")
    assert source.read(0, 3) == b"old"
    source.check()
    path.unlink()
    source.check()


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _cut(path: Path) -> None:
    os.truncate(path, 5)


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [_append, _cut, _touch, Path.unlink])
def test_a_large_file_that_changes_is_given_up(root: Path, change: Callable[[Path], None]) -> None:
    path = _file(root / "a", bytes(SMALL_BYTES + 10))
    source = _source(path, root)
    assert source.read(0, 100) == bytes(100)
    change(path)
    with pytest.raises(FileChanged):
        source.check()
    with pytest.raises(FileChanged):
        source.read(SMALL_BYTES, 10)
    source.close()


def test_a_file_that_has_changed_since_it_was_found_is_not_begun(root: Path) -> None:
    path = _file(root / "a")
    state = _state(path)
    _append(path)
    with pytest.raises(FileChanged):
        Source(str(path), str(root), ME, state)


def test_a_file_that_has_become_a_link_is_not_followed(root: Path) -> None:
    path = _file(root / "a")
    state = _state(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(FileChanged):
        Source(str(path), str(root), ME, state)


def test_no_descriptor_stays_open(root: Path) -> None:
    """Neither of a file that is done with, nor of one that could not be begun."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for size in (10, SMALL_BYTES + 10):
        path = _file(root / "a", bytes(size))
        _source(path, root).close()
        with pytest.raises(FileChanged):
            Source(str(path), str(root), ME, State(1, 2, 3))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- who writes it -------------------------------------------------------------------------------------------------


def test_a_closed_file_has_no_writers(root: Path) -> None:
    """And whoever opens it next does not wait for us."""
    path = _file(root / "a")
    fd = open_file(str(path), str(root), ME)
    assert writers_of(fd) is Writers.NONE
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    os.close(fd)


def test_a_file_that_another_process_writes_has_some(root: Path) -> None:
    path = _file(root / "a")
    code = "import sys; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        fd = open_file(str(path), str(root), ME)
        assert writers_of(fd) is Writers.SOME
        writer.communicate(timeout=30)
        assert writers_of(fd) is Writers.NONE
        os.close(fd)


def test_where_the_kernel_does_not_tell_nothing_is_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system knows no leases."""

    def refuse(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    fd = open_file(str(_file(root / "a")), str(root), ME)
    monkeypatch.setattr("fcntl.fcntl", refuse)
    assert writers_of(fd) is Writers.UNKNOWN
    os.close(fd)
