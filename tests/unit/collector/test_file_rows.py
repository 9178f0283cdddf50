"""The table of files: listed when they are there, and gone with the last run that has them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator
from pathlib import Path

import duckdb
import pytest

from allranks_collector.file_rows import FileInfo, Sealed, digest_of, record, remove_run
from allranks_collector.files import FileStore
from allranks_collector.store import DiskFull, Store
from allranks_collector.testing import DatabaseBuilder


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def _sealed(
    files: FileStore, number: int, body: bytes, *, run: str = "run-1", host: str = "h", name: str = "a"
) -> Sealed:
    transfer = number.to_bytes(16, "big")
    partial = files.open(transfer, len(body))
    partial.write(body)
    return Sealed(FileInfo(transfer, run, host, name, len(body), 5, 3), partial.seal())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _rows(store: Store) -> list[tuple[object, ...]]:
    with store.cursor() as cursor:
        return cursor.execute("SELECT run, host, name, digest, size, modified_ns, rank FROM files").fetchall()


def test_a_file_is_listed_and_in_its_place(store: Store, build: DatabaseBuilder, files: FileStore) -> None:
    run = build.run("run-1")
    sealed = _sealed(files, 1, b"abc")
    assert digest_of(store, files, sealed.file.transfer) is None
    assert record(store, files, [sealed]).stored == [sealed]
    assert _rows(store) == [(run, "h", "a", _digest(b"abc"), 3, 5, 3)]
    assert files.blob(sealed.digest).read_bytes() == b"abc"
    assert digest_of(store, files, sealed.file.transfer) == sealed.digest


def test_a_file_of_a_run_that_is_not_known_waits(store: Store, build: DatabaseBuilder, files: FileStore) -> None:
    build.run("run-1")
    home, homeless = _sealed(files, 1, b"abc"), _sealed(files, 2, b"xyz", run="run-2")
    done = record(store, files, [home, homeless])
    assert (done.stored, done.homeless) == ([home], [homeless])
    assert not files.has(homeless.digest)
    build.run("run-2")
    assert record(store, files, [homeless]).stored == [homeless]
    assert files.has(homeless.digest)


def _fill_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = store.transaction

    @contextlib.contextmanager
    def full() -> Generator[duckdb.DuckDBPyConnection]:
        with transaction() as connection:
            yield connection
            raise DiskFull(store.path)

    monkeypatch.setattr(store, "transaction", full)


def test_what_could_not_be_listed_can_be_tried_again(
    store: Store, build: DatabaseBuilder, files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.run("run-1")
    sealed = _sealed(files, 1, b"abc")
    _fill_disk(store, monkeypatch)
    with pytest.raises(DiskFull):
        record(store, files, [sealed])
    assert _rows(store) == []
    monkeypatch.undo()
    assert record(store, files, [sealed]).stored == [sealed]
    assert len(_rows(store)) == 1


def test_what_has_gone_meanwhile_is_not_listed(store: Store, build: DatabaseBuilder, files: FileStore) -> None:
    build.run("run-1")
    sealed = _sealed(files, 1, b"abc")
    files.forget(sealed.file.transfer)
    assert record(store, files, [sealed]).lost == [sealed]
    assert _rows(store) == []


def test_a_transfer_whose_content_is_gone_is_not_stored(
    store: Store, build: DatabaseBuilder, files: FileStore
) -> None:
    build.run("run-1")
    sealed = _sealed(files, 1, b"abc")
    record(store, files, [sealed])
    files.blob(sealed.digest).unlink()
    assert digest_of(store, files, sealed.file.transfer) is None


def test_a_run_takes_along_what_no_other_run_has(store: Store, build: DatabaseBuilder, files: FileStore) -> None:
    first, second = build.run("run-1"), build.run("run-2")
    record(store, files, [_sealed(files, 1, b"mine"), _sealed(files, 2, b"ours", name="b")])
    record(store, files, [_sealed(files, 3, b"ours", run="run-2")])
    arriving = _sealed(files, 4, b"mine", run="run-2")
    remove_run(store, files, first)
    assert [files.has(_digest(body)) for body in (b"mine", b"ours")] == [False, True]
    assert [row[0] for row in _rows(store)] == [second]
    # What arrives just now is not touched, whatever it is.
    assert record(store, files, [arriving]).stored == [arriving]
    remove_run(store, files, second)
    assert [path for path in files.root.rglob("*") if path.is_file()] == []


def test_a_file_that_has_gone_back_to_what_it_was_is_not_stored_yet(
    store: Store, build: DatabaseBuilder, files: FileStore
) -> None:
    """It would be listed as what it was in between."""
    build.run("run-1")
    first, second = _sealed(files, 1, b"first"), _sealed(files, 2, b"second")
    record(store, files, [first])
    record(store, files, [second])
    assert digest_of(store, files, first.file.transfer) is None
    assert digest_of(store, files, second.file.transfer) == second.digest
    record(store, files, [_sealed(files, 1, b"first")])
    assert digest_of(store, files, first.file.transfer) == first.digest
    assert digest_of(store, files, second.file.transfer) is None


# -- versions -----------------------------------------------------------------------------------------------


def _keeping(tmp_path: Path, versions: int) -> FileStore:
    return FileStore(tmp_path / "files", versions=versions)


def _contents(store: Store) -> list[str]:
    with store.cursor() as cursor:
        return [digest for (digest,) in cursor.execute("SELECT digest FROM files ORDER BY rowid").fetchall()]


def _blobs(files: FileStore) -> set[str]:
    return {path.name for path in files.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("versions", "kept"), [(0, [b"1", b"2", b"3", b"4"]), (1, [b"4"]), (3, [b"2", b"3", b"4"])])
def test_of_a_file_the_newest_versions_are_kept(
    store: Store, build: DatabaseBuilder, tmp_path: Path, versions: int, kept: list[bytes]
) -> None:
    build.run("run-1")
    files = _keeping(tmp_path, versions)
    for number in (1, 2, 3, 4):
        record(store, files, [_sealed(files, number, b"%d" % number)])
    assert _contents(store) == [_digest(body) for body in kept]
    assert _blobs(files) == {_digest(body) for body in kept}


def test_of_versions_that_come_together_the_last_ones_are_kept(
    store: Store, build: DatabaseBuilder, tmp_path: Path
) -> None:
    build.run("run-1")
    files = _keeping(tmp_path, 2)
    record(store, files, [_sealed(files, number, b"%d" % number) for number in (1, 2, 3)])
    assert _contents(store) == [_digest(b"2"), _digest(b"3")]
    assert _blobs(files) == {_digest(b"2"), _digest(b"3")}


def test_the_same_content_again_is_no_further_version(store: Store, build: DatabaseBuilder, tmp_path: Path) -> None:
    build.run("run-1")
    files = _keeping(tmp_path, 2)
    for number, body in enumerate((b"old", b"new", b"new", b"old", b"old")):
        record(store, files, [_sealed(files, number, body)])
    assert _contents(store) == [_digest(b"new"), _digest(b"old")]


@pytest.mark.parametrize("other", [{"run": "run-2"}, {"host": "h2"}, {"name": "b"}])
def test_a_content_that_another_file_has_stays(
    store: Store, build: DatabaseBuilder, tmp_path: Path, other: dict[str, str]
) -> None:
    build.run("run-1")
    build.run("run-2")
    files = _keeping(tmp_path, 1)
    record(store, files, [_sealed(files, 1, b"ours")])
    record(store, files, [_sealed(files, 2, b"ours", **other)])
    record(store, files, [_sealed(files, 3, b"newer")])
    assert sorted(_contents(store)) == sorted([_digest(b"ours"), _digest(b"newer")])
    assert _blobs(files) == {_digest(b"ours"), _digest(b"newer")}
    record(store, files, [_sealed(files, 4, b"newer", **other)])
    assert _blobs(files) == {_digest(b"newer")}


def test_where_the_newer_one_cannot_be_listed_the_older_one_stays(
    store: Store, build: DatabaseBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.run("run-1")
    files = _keeping(tmp_path, 1)
    record(store, files, [_sealed(files, 1, b"old")])
    newer = _sealed(files, 2, b"newer")
    _fill_disk(store, monkeypatch)
    with pytest.raises(DiskFull):
        record(store, files, [newer])
    assert _contents(store) == [_digest(b"old")]
    assert _digest(b"old") in _blobs(files)
    monkeypatch.undo()
    record(store, files, [newer])
    assert (_contents(store), _blobs(files)) == ([newer.digest], {newer.digest})
