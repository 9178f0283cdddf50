"""The folder of files: nothing half there under a digest, what has come is gone on with, and room is left."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from allranks_collector.files import KEEP_PARTIAL_S, FileStore, NoRoom, default_reserve_bytes, reason_of
from allranks_collector.partials import FLUSH_BYTES, Partial

TRANSFER = bytes(range(16))
BODY = random.Random(1).randbytes(300_000)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# -- a file on its way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", BODY, bytes(FLUSH_BYTES + 5)])
def test_what_is_written_is_there_with_its_digest(files: FileStore, body: bytes) -> None:
    partial = files.open(TRANSFER, len(body))
    for begin in range(0, len(body), 1 << 20):
        partial.write(body[begin : begin + (1 << 20)])
    assert partial.seal() == _digest(body)
    assert files.place({TRANSFER: _digest(body)}) == set()
    assert files.blob(_digest(body)).read_bytes() == body
    assert _names(files.root) == [f"blobs/{_digest(body)[:2]}/{_digest(body)}"]


def test_a_file_is_gone_on_with_where_it_was_left(files: FileStore) -> None:
    first = files.open(TRANSFER, len(BODY))
    first.write(BODY[:200_000])
    first.close()
    again = files.open(TRANSFER, len(BODY))
    parts = 0
    while not again.is_taken_up:
        again.take_up(70_000)
        parts += 1
    assert (parts, again.offset) == (3, 200_000)
    again.write(BODY[200_000:])
    assert again.seal() == _digest(BODY)


def test_what_is_longer_than_the_file_is_not_of_it(files: FileStore) -> None:
    first = files.open(TRANSFER, len(BODY))
    first.write(BODY)
    first.close()
    other = files.open(TRANSFER, 10)
    assert (other.is_taken_up, other.offset) == (True, 0)


def test_what_came_before_the_machine_went_down_is_not_gone_on_with(
    files: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = files.open(TRANSFER, len(BODY))
    first.write(BODY)
    first.close()
    monkeypatch.setattr("allranks_bus.processes.boot_id", lambda: "another boot")
    after = FileStore(tmp_path / "files")
    assert after.open(TRANSFER, len(BODY)).offset == 0
    after.tidy()
    assert len(_names(after.root)) == 1


def test_of_nothing_nothing_stays(files: FileStore) -> None:
    files.open(TRANSFER, 10).close()
    assert _names(files.root) == []


def test_a_file_that_is_dropped_leaves_nothing(files: FileStore) -> None:
    partial = files.open(TRANSFER, 10)
    partial.write(b"12345")
    partial.close()
    files.forget(TRANSFER)
    files.forget(TRANSFER)
    assert _names(files.root) == []


def test_a_link_in_the_place_of_a_partial_is_not_followed(files: FileStore, tmp_path: Path) -> None:
    files.open(TRANSFER, 10).close()
    (tmp_path / "target").write_bytes(b"mine")
    partial = files.open(TRANSFER, 10)
    partial.path.unlink()
    partial.path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        Partial(partial.path, 10)


# -- contents -----------------------------------------------------------------------------------------------


def test_the_same_content_is_kept_once(files: FileStore) -> None:
    for number in (1, 2):
        partial = files.open(bytes([number]) * 16, 3)
        partial.write(b"abc")
        files.place({bytes([number]) * 16: partial.seal()})
    assert len(_names(files.root)) == 1
    assert files.has(_digest(b"abc"))


def test_to_place_a_content_again_is_fine(files: FileStore) -> None:
    """As after a commit that failed."""
    partial = files.open(TRANSFER, 3)
    partial.write(b"abc")
    digest = partial.seal()
    for _ in range(2):
        assert files.place({TRANSFER: digest}) == set()
    files.remove(digest)
    files.remove(digest)
    assert files.place({TRANSFER: digest}) == {TRANSFER}


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "aa/" + "a" * 61])
def test_only_a_digest_names_a_content(files: FileStore, digest: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        files.blob(digest)


# -- room ---------------------------------------------------------------------------------------------------


def test_what_does_not_fit_beside_the_reserve_is_not_begun(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    files = FileStore(tmp_path / "files", reserve_bytes=free // 2)
    words = (
        r"no room for .*iB more on the disk of .*files: .* are free, and .* free for events .* set files_reserve_mb"
    )
    with pytest.raises(NoRoom, match=words):
        files.open(TRANSFER, free // 2 + free // 4)
    assert _names(files.root) == []
    files.open(TRANSFER, 1000).close()


@pytest.mark.parametrize(("disk_gib", "reserve_gib"), [(0.1, 1), (10, 1), (100, 5), (10_000, 500)])
def test_by_default_a_part_of_the_disk_stays_free(disk_gib: float, reserve_gib: float) -> None:
    assert default_reserve_bytes(round(disk_gib * 2**30)) == reserve_gib * 2**30


def test_the_default_is_kept_free_where_nothing_else_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of 1 GiB: a disk of 100, of which 8 are free.
    fields = (2**30, 2**30, 100, 8, 8, 0, 0, 0, 0, 255)
    disk = os.statvfs_result(fields)

    def state(_: Path) -> os.statvfs_result:
        return disk

    monkeypatch.setattr("allranks_collector.files.os.statvfs", state)
    files = FileStore(tmp_path / "files", reserve_bytes=None)
    files.check_room(3 << 30)
    with pytest.raises(NoRoom, match=r"8\.0 GiB are free, and files leave 5\.0 GiB free for events"):
        files.check_room((3 << 30) + 1)


def test_what_has_come_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FileStore(tmp_path / "files")
    partial = files.open(TRANSFER, len(BODY))
    partial.write(BODY)
    partial.close()
    full = FileStore(tmp_path / "files", reserve_bytes=2**62)
    assert full.open(TRANSFER, len(BODY)).path == partial.path
    with pytest.raises(NoRoom):
        full.check_room(1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x"), "no space left for files"),
        (OSError(errno.EFBIG, "x"), "no space left for files"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot keep it: Read-only file system"),
        (OSError("it has become shorter"), "it has become shorter"),
    ],
)
def test_why_a_file_cannot_be_kept_is_one_line(error: OSError, words: str) -> None:
    assert words in reason_of(error)


# -- tidying ------------------------------------------------------------------------------------------------


def test_what_nobody_goes_on_with_is_removed(files: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allranks_collector.files.MAX_PARTIALS", 2)
    paths: list[Path] = []
    for number in range(4):
        partial = files.open(bytes([number]) * 16, 3)
        partial.write(b"ab")
        partial.close()
        paths.append(partial.path)
        os.utime(partial.path, (1e9 * number, partial.path.stat().st_mtime - number))
    os.utime(paths[0], (0, paths[0].stat().st_mtime - KEEP_PARTIAL_S - 1))
    files.tidy()
    # The first was too old; of the others the two newest stay.
    assert [path.exists() for path in paths] == [False, True, True, False]


def test_a_folder_that_is_not_there_needs_no_tidying(files: FileStore) -> None:
    files.tidy()
    assert not files.root.exists()
