"""A writer's spool: what `append` took is read again, in order, once, whatever comes between."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from allranks_bus import records
from allranks_bus.errors import SpoolError
from allranks_bus.log import Log
from allranks_bus.records import MAX_PAYLOAD_BYTES
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_directory import find_spools
from allranks_bus.wire import MAX_BATCH_BYTES

NAME = bytes(range(16))
OPENING = b"opening"
_RECORD = 8 + 1000

MakeWriter = Callable[..., SpoolWriter]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeWriter]:
    """Makes a writer under the test's directory; it is closed afterwards."""
    made: list[SpoolWriter] = []

    def writer(**sizes: int) -> SpoolWriter:
        made.append(SpoolWriter(tmp_path / "root", NAME, lambda: OPENING, **sizes))
        return made[-1]

    yield writer
    for each in made:
        each.close()


def payloads_of(body: bytes) -> list[bytes]:
    """The payloads of a batch, all of whose bytes must be whole records."""
    found = list(records.scan(body))
    assert (found[-1][1] if found else 0) == len(body)
    return [body[begin:end] for begin, end in found]


def read_all(log: Log, seq: int | None = None) -> list[bytes]:
    """Every record from `seq`, or else from the oldest, batch by batch."""
    at = log.base if seq is None else seq
    payloads: list[bytes] = []
    while True:
        count, body = log.read(at)
        if not count:
            assert at >= log.end
            return payloads
        batch = payloads_of(body)
        assert len(batch) == count
        payloads += batch
        at += count


def test_a_new_spool_holds_its_opening(make: MakeWriter) -> None:
    """The first record is the OPEN, numbered 0."""
    writer = make()
    assert (writer.base, writer.end) == (0, 1)
    assert read_all(writer) == [OPENING]


def test_what_is_appended_is_read(make: MakeWriter) -> None:
    """In order, from any record on."""
    writer = make()
    payloads = [b"%d" % number for number in range(100)]
    assert all(writer.append(payload) for payload in payloads)
    assert writer.end == 101
    for seq in (1, 2, 50, 100, 101):
        assert read_all(writer, seq) == payloads[seq - 1 :]


def test_there_is_nothing_at_the_end(make: MakeWriter) -> None:
    """Neither at it nor behind it."""
    writer = make()
    assert writer.read(1) == writer.read(1000) == (0, b"")


def test_a_batch_ends_at_a_mark(make: MakeWriter) -> None:
    """So that it is no larger than a message may be, also with the largest records."""
    writer = make()
    for _ in range(3):
        assert writer.append(bytes(MAX_PAYLOAD_BYTES))
    assert [len(payloads_of(writer.read(seq)[1])) for seq in (0, 2, 3)] == [2, 1, 1]
    assert len(writer.read(0)[1]) <= MAX_BATCH_BYTES


def test_a_full_segment_is_followed_by_another(make: MakeWriter, tmp_path: Path) -> None:
    """Which is named by its first record, and begins with an OPEN."""
    writer = make(segment_bytes=10_000)
    for _ in range(100):
        writer.append(bytes(1000))
    paths = sorted(writer.directory.glob("*.seg"))
    assert len(paths) > 5
    read = 0
    for path in paths:
        assert path.name == f"{read:020d}.seg"
        payloads = payloads_of(path.read_bytes())
        assert payloads[0] == OPENING
        read += len(payloads)
    assert read == writer.end == 100 + len(paths)
    assert tmp_path in writer.directory.parents


def test_release_removes_whole_segments(make: MakeWriter) -> None:
    """Those that lie before the seq, never the newest; `base` and `held_bytes` follow."""
    writer = make(segment_bytes=10_000)
    for _ in range(50):
        writer.append(bytes(1000))
    firsts = [int(path.stem) for path in sorted(writer.directory.glob("*.seg"))]
    writer.release(firsts[2] - 1)
    assert writer.base == firsts[1]
    writer.release(firsts[2])
    assert writer.base == firsts[2]
    writer.release(writer.end)
    assert writer.base == firsts[-1]
    assert [path.stat().st_size for path in writer.directory.glob("*.seg")] == [writer.held_bytes]
    assert writer.read(0) == (0, b"")
    assert len(read_all(writer)) == writer.end - firsts[-1]


def test_a_record_that_could_not_be_read_again_is_refused(make: MakeWriter) -> None:
    """An empty or an oversize one would hide all that follows."""
    writer = make()
    assert not writer.append(b"")
    assert not writer.append(bytes(MAX_PAYLOAD_BYTES + 1))
    assert writer.refused == 2
    assert "not 4,194,305" in writer.problem
    assert writer.append(b"good")
    assert read_all(writer) == [OPENING, b"good"]


def test_threads_append_while_one_reads(make: MakeWriter) -> None:
    """Each record is read once, and in the order of its thread."""
    writer = make(segment_bytes=50_000)
    threads, each = 8, 1500
    start = threading.Barrier(threads + 1)

    def append(thread: int) -> None:
        start.wait()
        for number in range(each):
            assert writer.append(b"%d %d" % (thread, number) + bytes(50))

    workers = [threading.Thread(target=append, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    seen: list[list[int]] = [[] for _ in workers]
    at = openings = 0
    while sum(map(len, seen)) < threads * each:
        count, body = writer.read(at)
        batch = payloads_of(body)
        assert len(batch) == count
        for payload in batch:
            if payload == OPENING:
                openings += 1
            else:
                thread, number = map(int, payload.rstrip(b"\0").split())
                seen[thread].append(number)
        at += count
        writer.release(at)
    for worker in workers:
        worker.join()
    assert seen == [list(range(each))] * threads
    assert openings > 5
    assert (writer.end, writer.refused) == (at, 0)


def test_the_cap_refuses_and_release_makes_room(make: MakeWriter) -> None:
    """What is refused is counted; what was kept stays."""
    writer = make(segment_bytes=20_000, cap_bytes=100_000)
    kept = sum(writer.append(bytes(1000)) for _ in range(300))
    assert 90 <= kept <= 105
    assert writer.refused == 300 - kept
    assert ("cap of 100,000 bytes" in writer.problem, writer.is_suspended) == (True, True)
    assert read_all(writer).count(bytes(1000)) == kept
    writer.release(writer.end)
    assert writer.append(b"room again")
    assert (writer.problem, writer.is_suspended) == ("", False)
    assert read_all(writer)[-1] == b"room again"


@pytest.mark.parametrize("cap_bytes", [20_000, 100_000, 300_000, 1_000_000])
def test_no_cap_is_a_dead_end(make: MakeWriter, cap_bytes: int) -> None:
    """However small it is, once all is released there is room again, and it is kept roughly."""
    writer = make(cap_bytes=cap_bytes)
    for _ in range(5):
        while writer.append(bytes(1000)):
            # It is looked at where a mark is due, at least four times before it is reached.
            assert writer.held_bytes < cap_bytes * 1.25 + 2 * _RECORD
        assert writer.held_bytes > cap_bytes / 2
        writer.release(writer.end)
        assert writer.append(b"room again")


def test_a_segment_that_could_not_be_followed_is_followed_at_the_cap(
    make: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where new files fail, one grows up to the cap: it is the newest, but must not be kept for ever."""
    writer = make(cap_bytes=100_000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", _fails)
        while writer.append(bytes(1000)):
            pass
        assert len(list(writer.directory.glob("*.seg"))) == 1
    now = 1e9
    monkeypatch.setattr("allranks_bus.spool.time.monotonic", lambda: now)
    assert not writer.append(b"the one that finds out")
    assert read_all(writer)[-1] == OPENING
    writer.release(writer.end)
    assert writer.append(b"room again")


def _fails(*_: object) -> int:
    raise OSError(24, "Too many open files")


def test_a_disk_error_is_not_tried_at_every_append(make: MakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training must not pay for a system call that fails, thousands of times a second."""
    writer = make()
    now = [100.0]
    monkeypatch.setattr("allranks_bus.spool.time.monotonic", lambda: now[0])
    opened: list[object] = []

    def fails(path: object, *_: object) -> int:
        opened.append(path)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", _disk_full)
        assert not writer.append(b"a")
        patched.setattr(os, "open", fails)
        assert not any(writer.append(b"b") for _ in range(100))
        assert not opened
        now[0] += 1.0
        assert not any(writer.append(b"b") for _ in range(100))
        assert len(opened) == 1
    now[0] += 1.0
    assert writer.append(b"c")
    assert writer.refused == 201
    assert read_all(writer) == [OPENING, b"c"]


def _disk_full(fd: int, data: bytes) -> int:
    raise OSError(28 if fd >= 0 else 9, "No space left on device")


def test_half_a_record_is_cut_off(make: MakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that came to an end too early leaves no trace once there is room."""
    writer = make()
    monkeypatch.setattr("allranks_bus.spool._RETRY_S", 0.0)
    write = os.write

    def half(fd: int, data: bytes) -> int:
        return write(fd, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        assert not writer.append(b"never whole")
    assert read_all(writer) == [OPENING]
    assert writer.append(b"whole")
    assert read_all(writer) == [OPENING, b"whole"]
    assert len(payloads_of(next(writer.directory.glob("*.seg")).read_bytes())) == 2


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), TimeoutError("the user's alarm"), SystemExit(3)])
@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_what_a_signal_handler_raises_goes_through(
    make: MakeWriter, monkeypatch: pytest.MonkeyPatch, raised: BaseException, written: float
) -> None:
    """Also an OSError without a number is not the disk's; the record counts if it is whole."""
    writer = make()
    write = os.write

    def interrupted(fd: int, data: bytes) -> int:
        write(fd, data[: int(len(data) * written)])
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", interrupted)
        with pytest.raises(type(raised)):
            writer.append(b"perhaps")
    assert writer.append(b"after")
    assert writer.refused == 0
    assert read_all(writer) == [OPENING, *[b"perhaps"] * (written == 1.0), b"after"]


def test_an_append_within_an_append_keeps_marks_true(make: MakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may log between another record's writing and its counting, where a mark is due."""
    writer = make(segment_bytes=10_000)
    write = os.write
    depth = 0

    def with_signal(fd: int, data: bytes) -> int:
        nonlocal depth
        written = write(fd, data)
        if depth == 0 and data.endswith(b"outside"):
            depth = 1
            writer.append(b"handler" * 10)
            depth = 0
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", with_signal)
        for _ in range(300):
            assert writer.append(b"outside" * 20)
    payloads = read_all(writer)
    assert payloads.count(b"outside" * 20) == 300
    assert payloads.count(b"handler" * 10) == 300
    assert len(payloads) == writer.end
    assert len(list(writer.directory.glob("*.seg"))) > 3


def test_a_descriptor_that_somebody_closed_is_opened_again(make: MakeWriter) -> None:
    """A program that makes itself a daemon closes all descriptors."""
    writer = make()
    writer.append(b"before")
    os.close(writer._fd)  # pyright: ignore[reportPrivateUsage]
    for _ in range(2):
        writer.append(b"after")
    assert read_all(writer) == [OPENING, b"before", b"after", b"after"]
    assert writer.refused == 0


def test_after_close_records_are_refused_and_stay_readable(make: MakeWriter) -> None:
    """A clear problem, no error."""
    writer = make()
    writer.append(b"kept")
    writer.close()
    assert not writer.append(b"too late")
    assert (writer.refused, writer.problem) == (1, "the spool is closed")
    assert read_all(writer) == [OPENING, b"kept"]


def test_remove_leaves_nothing(make: MakeWriter, tmp_path: Path) -> None:
    """Neither files nor the directory; later records are refused."""
    writer = make()
    writer.append(b"stored elsewhere")
    writer.remove()
    assert list((tmp_path / "root").iterdir()) == []
    assert not writer.append(b"too late")
    assert list((tmp_path / "root").iterdir()) == []


def test_only_the_owner_may_look(make: MakeWriter, tmp_path: Path) -> None:
    """0700 for directories, 0600 for files, whatever the umask allows."""
    old = os.umask(0)
    try:
        writer = make(segment_bytes=2000)
        for _ in range(20):
            writer.append(bytes(500))
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in writer.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "root", writer.directory)} == {0o700}


@pytest.mark.parametrize("kind", ["file", "taken", "missing"])
def test_a_root_that_cannot_be_used_is_a_spool_error(tmp_path: Path, kind: str) -> None:
    """In one line that names it, with nothing left behind."""
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("")
    elif kind == "taken":
        (root / NAME.hex()).mkdir(parents=True)
        (root / NAME.hex() / "somebody's").write_text("")
    else:
        root = Path("/proc/nowhere")
    with pytest.raises(SpoolError) as caught:
        SpoolWriter(root, NAME, lambda: OPENING)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind == "taken":
        assert [path.name for path in root.iterdir()] == [NAME.hex()]


def test_a_spool_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No empty directory, no descriptor."""
    before = _open_files()
    monkeypatch.setattr(os, "write", _disk_full)
    with pytest.raises(SpoolError, match="No space left"):
        SpoolWriter(tmp_path / "root", NAME, lambda: OPENING)
    assert list((tmp_path / "root").iterdir()) == []
    assert _open_files() == before


def _open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_find_spools_gives_writers_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither links, files, other names, nor what belongs to somebody else."""
    names = [character * 32 for character in "abc"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ("d" * 32)).symlink_to(tmp_path / names[0])
    (tmp_path / ("e" * 32)).write_text("")
    for name in (f".{'f' * 32}", "f" * 31, "F" * 32, "g" * 32, " ".join(["ff"] * 16), "lost+found"):
        (tmp_path / name).mkdir()
    assert [path.name for path in find_spools(tmp_path)] == names
    assert list(find_spools(tmp_path / "nowhere")) == []
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert list(find_spools(tmp_path)) == []


class SpoolModel(RuleBasedStateMachine):
    """A spool beside a plain list: small segments and marks, so that every boundary is met."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.writer = SpoolWriter(Path(self.directory.name), NAME, self._opening, segment_bytes=400)
        self.model: list[bytes] = []
        self.openings = 0

    def _opening(self) -> bytes:
        return OPENING

    @rule(size=st.integers(1, 150), times=st.integers(1, 5))
    def append(self, size: int, times: int) -> None:
        for _ in range(times):
            payload = b"%d" % len(self.model) + bytes(size)
            assert self.writer.append(payload)
            self.model.append(payload)

    @precondition(lambda self: self.writer.end > self.writer.base)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(self.writer.base, self.writer.end))
        base = self.writer.base
        self.writer.release(seq)
        assert base <= self.writer.base <= max(base, seq)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(self.writer.base, self.writer.end))
        payloads = [payload for payload in read_all(self.writer, seq) if payload != OPENING]
        assert payloads == self.model[len(self.model) - len(payloads) :]

    @invariant()
    def everything_that_is_held_is_there(self) -> None:
        assert len(read_all(self.writer)) == self.writer.end - self.writer.base

    def teardown(self) -> None:
        self.writer.remove()
        self.directory.cleanup()


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = settings(max_examples=30, stateful_step_count=20)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=60), skip=st.integers(0, 60))
def test_reading_may_begin_at_any_record(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], skip: int
) -> None:
    """Also between two marks, where an ack happened to fall."""
    writer = SpoolWriter(tmp_path_factory.mktemp("spool"), NAME, lambda: OPENING, segment_bytes=4000)
    try:
        for size in sizes:
            writer.append(bytes(size))
        whole = read_all(writer)
        seq = min(skip, len(whole))
        assert read_all(writer, seq) == whole[seq:]
    finally:
        writer.remove()
