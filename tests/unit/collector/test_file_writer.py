"""The writing of files: in order, undamaged, gone on with, and never more than was offered."""

from __future__ import annotations

import errno
import hashlib
import random
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allranks_bus.wire import Chunk, End
from allranks_collector.file_rows import FileInfo, Sealed, record
from allranks_collector.file_writer import (
    Close,
    Failed,
    FileWriter,
    Gap,
    Job,
    Known,
    Open,
    Opening,
    Outcome,
    Ready,
    Whole,
    Written,
)
from allranks_collector.files import FileStore
from allranks_collector.partials import Partial
from allranks_collector.store import Store, StoreError
from allranks_collector.testing import DatabaseBuilder

SENDER, FILE, OTHER = bytes(16), b"f" * 16, b"o" * 16
BODY = random.Random(1).randbytes(1000)


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def writer(files: FileStore, store: Store) -> FileWriter:
    return FileWriter(files, store)


def _chunk(begin: int, end: int, *, body: bytes = BODY, transfer: bytes = FILE) -> Chunk:
    return Chunk(SENDER, transfer, begin, zlib.crc32(body[begin:end]), body[begin:end])


def _end(size: int = len(BODY), transfer: bytes = FILE) -> End:
    return End(SENDER, transfer, size)


def test_a_file_comes_in_pieces(writer: FileWriter) -> None:
    done = writer.work([Open(FILE, 1000), _chunk(0, 400), _chunk(400, 1000), _end()])
    assert done == [
        Ready(FILE, 0),
        Written(FILE, 400),
        Written(FILE, 1000),
        Whole(FILE, hashlib.sha256(BODY).hexdigest()),
    ]


def test_a_file_of_nothing_is_a_file(writer: FileWriter) -> None:
    assert writer.work([Open(FILE, 0), _end(0)]) == [Ready(FILE, 0), Whole(FILE, hashlib.sha256().hexdigest())]


def test_several_files_come_in_at_once(writer: FileWriter) -> None:
    other = BODY[::-1]
    done = writer.work([Open(FILE, 1000), Open(OTHER, 1000)])
    for begin in range(0, 1000, 250):
        done += writer.work([_chunk(begin, begin + 250), _chunk(begin, begin + 250, body=other, transfer=OTHER)])
    done += writer.work([_end(transfer=OTHER), _end()])
    assert done[-2:] == [
        Whole(OTHER, hashlib.sha256(other).hexdigest()),
        Whole(FILE, hashlib.sha256(BODY).hexdigest()),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(_chunk(500, 600), id="a gap"),
        pytest.param(_chunk(0, 400), id="twice"),
        pytest.param(_chunk(300, 600), id="overlapping"),
        pytest.param(Chunk(SENDER, FILE, 400, 7, b"abc"), id="damaged"),
        pytest.param(Chunk(SENDER, FILE, 400, zlib.crc32(bytes(601)), bytes(601)), id="beyond the size"),
        pytest.param(Chunk(SENDER, FILE, 2**62, zlib.crc32(b"a"), b"a"), id="far away"),
        pytest.param(_end(), id="the end too early"),
        pytest.param(_end(400), id="another end"),
    ],
)
def test_what_does_not_go_on_where_it_stands_must_come_again(writer: FileWriter, wrong: Chunk | End) -> None:
    writer.work([Open(FILE, 1000), _chunk(0, 400)])
    assert writer.work([wrong]) == [Gap(FILE, 400)]
    assert isinstance(writer.work([_chunk(400, 1000), _end()])[-1], Whole)


@pytest.mark.parametrize("job", [_chunk(0, 10), _end(), Close(FILE), Close(FILE, forget=True)])
def test_what_nobody_offered_is_left_alone(writer: FileWriter, files: FileStore, job: Chunk | End | Close) -> None:
    assert writer.work([job]) == []
    assert not files.root.exists()


def test_a_file_is_gone_on_with_by_the_next_writer(writer: FileWriter, files: FileStore, store: Store) -> None:
    writer.work([Open(FILE, 1000), _chunk(0, 400)])
    writer.close()
    again = FileWriter(files, store)
    assert again.work([Open(FILE, 1000)]) == [Ready(FILE, 400)]
    assert again.work([_chunk(400, 1000), _end()])[-1] == Whole(FILE, hashlib.sha256(BODY).hexdigest())


def test_what_has_come_is_read_again_in_parts(
    writer: FileWriter, files: FileStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allranks_collector.file_writer.TAKE_UP_BYTES", 300)
    writer.work([Open(FILE, 1000), _chunk(0, 700)])
    writer.close()
    again = FileWriter(files, store)
    early: list[Job] = [_chunk(700, 1000), _end()]  # of a sender that does not wait
    assert again.work([Open(FILE, 1000), *early]) == [Opening(FILE)]
    assert again.work([Open(FILE, 1000), *early]) == [Opening(FILE)]
    assert again.work([Open(FILE, 1000)]) == [Ready(FILE, 700)]
    assert isinstance(again.work(early)[-1], Whole)


def test_what_is_given_up_begins_anew(writer: FileWriter) -> None:
    writer.work([Open(FILE, 1000), _chunk(0, 400), Close(FILE, forget=True)])
    assert writer.work([_chunk(400, 1000), Open(FILE, 1000)]) == [Ready(FILE, 0)]


def test_what_is_let_go_of_stays(writer: FileWriter) -> None:
    assert writer.work([Open(FILE, 1000), _chunk(0, 400), Close(FILE), Open(FILE, 1000)])[-1] == Ready(FILE, 400)


def test_what_is_stored_is_not_sent_again(
    writer: FileWriter, files: FileStore, store: Store, build: DatabaseBuilder
) -> None:
    build.run("run-1")
    (*_, whole) = writer.work([Open(FILE, 1000), _chunk(0, 1000), _end()])
    assert isinstance(whole, Whole)
    record(store, files, [Sealed(FileInfo(FILE, "run-1", "h", "a", 1000, 1, None), whole.digest)])
    assert writer.work([Open(FILE, 1000)]) == [Known(FILE, whole.digest)]


def test_a_full_disk_costs_the_file_its_turn_and_nobody_else_anything(
    writer: FileWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Partial.write
    is_full = True

    def full(self: Partial, body: bytes) -> None:
        if is_full and FILE.hex() in self.path.name:
            write(self, body[:3])  # some of it has come through
            raise OSError(errno.ENOSPC, "no space")
        write(self, body)

    monkeypatch.setattr(Partial, "write", full)
    jobs: list[Job] = [
        Open(FILE, 1000),
        _chunk(0, 400),
        _chunk(400, 1000),
        Open(OTHER, 1000),
        _chunk(0, 400, transfer=OTHER),
    ]
    done = writer.work(jobs)
    assert [type(outcome) for outcome in done] == [Ready, Failed, Ready, Written]
    assert isinstance(done[1], Failed)
    assert "no space left for files" in done[1].reason
    is_full = False
    # What came through of it is a beginning of the file, like any other.
    assert writer.work([Open(FILE, 1000)]) == [Ready(FILE, 3)]
    assert writer.work([_chunk(3, 1000), _end()])[-1] == Whole(FILE, hashlib.sha256(BODY).hexdigest())


def test_the_reserve_is_kept_also_from_files_that_are_under_way(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileStore(tmp_path / "files")
    writer = FileWriter(files, store)
    writer.work([Open(FILE, 1000), _chunk(0, 400)])
    monkeypatch.setattr(files, "_reserve_bytes", 2**62)
    (failed,) = writer.work([_chunk(400, 1000)])
    assert isinstance(failed, Failed)
    assert "free for events" in failed.reason


def test_a_store_that_cannot_be_asked_is_no_crash(
    writer: FileWriter, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> None:
        raise StoreError("the database has been closed")

    monkeypatch.setattr(store, "cursor", closed)
    assert writer.work([Open(FILE, 1)]) == [Failed(FILE, "the database has been closed")]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "chunk", "end", "close", "restart"]),
        st.integers(0, 60),
        st.integers(1, 30),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_whatever_comes_in_whatever_order_what_is_whole_is_the_file(
    store: Store, steps: list[tuple[str, int, int, bool]]
) -> None:
    """What is there is always a beginning of it."""
    body = BODY[:60]
    with tempfile.TemporaryDirectory() as folder:
        files = FileStore(Path(folder) / "files")
        writer = FileWriter(files, store)
        outcomes: list[Outcome] = []
        for kind, begin, size, damaged in steps:
            if kind == "restart":
                writer.close()
                writer = FileWriter(files, store)
            elif kind == "open":
                outcomes += writer.work([Open(FILE, 60)])
            elif kind == "close":
                writer.work([Close(FILE, forget=damaged)])
            elif kind == "end":
                outcomes += writer.work([_end(60)])
            elif body[begin : begin + size]:
                piece = body[begin : begin + size]
                crc32 = zlib.crc32(piece) ^ int(damaged)
                outcomes += writer.work([Chunk(SENDER, FILE, begin, crc32, piece)])
            for path in files.root.rglob("*.*"):
                assert body.startswith(path.read_bytes())
        assert all(not isinstance(outcome, Failed) for outcome in outcomes)
        assert {outcome.digest for outcome in outcomes if isinstance(outcome, Whole)} <= {
            hashlib.sha256(body).hexdigest()
        }
        writer.close()
