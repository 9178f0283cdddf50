"""Files at a collector that dies, that has no room, and that has events to take in, over real sockets."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
from tests.faults.programs.saving import LEFT
from tests.support import small_disk
from tests.support.collector import CollectorProcess
from tests.support.file_senders import CHUNK_BYTES, FileSender, file_sender
from tests.support.outboxes import kill_shippers_of, make_box, shippers_of
from tests.support.pipelines import Peer, peer
from tests.support.processes import resident_bytes
from tests.support.progress import PHASE
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until
from tests.support.writers import T0_NS, HandWriter, number

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.wire import FileAt, FileRefused, FileStored

_RUN = "run-1"
# No answer may hang; on a machine that is shared, a process may wait long for its turn.
_HANG_S = 10.0
_BODY = random.Random(1).randbytes(24 * CHUNK_BYTES + 5)


@contextlib.contextmanager
def _begun(collector: CollectorProcess) -> Generator[Peer]:
    """A writer of the run, which is known."""
    with peer(collector.address, HandWriter()) as one:
        anyio.run(one.meet)
        one.send(one.writer.batch([one.writer.open()], is_urgent=True))
        anyio.run(one.hear_position, 1)
        yield one


def _ack_s(one: Peer) -> float:
    """How long an event takes to be stored and acked."""
    began = time.monotonic()
    one.send(one.writer.batch([number(one.writer.seq)], is_urgent=True))
    anyio.run(one.hear_position, one.writer.seq)
    return time.monotonic() - began


def _partial(collector: CollectorProcess) -> Path | None:
    return next((collector.home / "files" / "partial").glob("*"), None)


def _send_some(sender: FileSender, name: str, body: bytes, end: int) -> bytes:
    transfer = sender.transfer_of(name, len(body))
    assert sender.open(name, len(body)) == FileAt(transfer, 0)
    for begin in range(0, end, CHUNK_BYTES):
        sender.chunk(transfer, begin, body[begin : begin + CHUNK_BYTES])
    return transfer


def test_a_collector_that_is_killed_in_mid_file_goes_on_where_it_was(collector: CollectorProcess) -> None:
    with _begun(collector), file_sender(collector.address) as sender:
        transfer = _send_some(sender, "a.ckpt", _BODY, 10 * CHUNK_BYTES)

        def has_some() -> bool:
            partial = _partial(collector)
            return partial is not None and partial.stat().st_size >= 4 * CHUNK_BYTES

        wait_until(has_some, "some of the file is there")
        collector.kill()
        assert collector.home.joinpath("files", "blobs").exists() is False  # nothing half there is listed
        collector.start()
    with file_sender(collector.address, 2) as sender:
        at = sender.open("a.ckpt", len(_BODY))
        assert isinstance(at, FileAt)
        assert 4 * CHUNK_BYTES <= at.offset <= 10 * CHUNK_BYTES
        stored = sender.send("a.ckpt", _BODY)
        assert isinstance(stored, FileStored)
        assert stored.transfer == transfer
    (file,) = collector.get(f"/api/runs/{_RUN}/files")["files"]
    assert (file["size"], file["digest"]) == (len(_BODY), stored.digest)
    assert collector.home.joinpath("files", "blobs", stored.digest[:2], stored.digest).read_bytes() == _BODY
    assert _partial(collector) is None


def test_a_full_disk_refuses_files_until_there_is_room(collector: CollectorProcess) -> None:
    disk = small_disk.small_disk("limit")
    with _begun(collector), file_sender(collector.address) as sender:
        disk.fill(collector.pid)  # no file may have more than a mebibyte
        refused = sender.send("a.ckpt", _BODY)
        assert isinstance(refused, FileRefused)
        assert not refused.is_final
        assert "no space left for files" in refused.reason
        status = collector.get("/api/collector")["files"]
        assert (status["problem"], status["stored"]) == (refused.reason, 0)
        assert "a file cannot be stored, events can: no space left" in collector.log.read_text()
        assert collector.get(f"/api/runs/{_RUN}/files")["files"] == []
        disk.make_room(collector.pid)
        assert isinstance(sender.send("a.ckpt", _BODY), FileStored)
        assert collector.get("/api/collector")["files"]["problem"] == ""


def test_the_room_that_is_for_events_is_left_to_them(
    collector_of: Callable[[dict[str, str]], CollectorProcess],
) -> None:
    with collector_of({"ALLRANKS_FILES_RESERVE_MB": "1000000000"}) as collector, _begun(collector) as one:
        with file_sender(collector.address) as sender:
            refused = sender.send("a.ckpt", _BODY)
        assert isinstance(refused, FileRefused)
        assert "free for events" in refused.reason
        assert _ack_s(one) < _HANG_S
        assert collector.ready()[0] == 200


def test_events_are_stored_while_files_come_in(
    collector: CollectorProcess, measured: Callable[[str, object], None]
) -> None:
    """And what waits of the files takes little memory."""
    with _begun(collector) as one, contextlib.ExitStack() as open_:
        alone = sorted(_ack_s(one) for _ in range(20))
        before = resident_bytes(collector.pid)
        senders = [open_.enter_context(file_sender(collector.address, number)) for number in (1, 2)]
        beside, most = list[float](), before
        for turn in range(6):
            body = random.Random(turn).randbytes(16 * CHUNK_BYTES)
            transfers = [
                _send_some(sender, f"file-{turn}-{number_}", body, len(body))
                for number_, sender in enumerate(senders)
            ]
            beside += [_ack_s(one) for _ in range(5)]
            most = max(most, resident_bytes(collector.pid))
            for sender, transfer in zip(senders, transfers, strict=True):
                sender.end(transfer, len(body))
        beside.sort()
        measured("ack alone, beside files, ms", [round(1000 * times[len(times) // 2]) for times in (alone, beside)])
        measured("longest ack beside files, ms", round(1000 * beside[-1]))
        measured("more memory, MiB", (most - before) >> 20)
        assert beside[-1] < _HANG_S
        # Two windows of 16 MiB in our queue, and what ZeroMQ holds of them.
        assert most - before < 200 * 1024 * 1024


def test_an_embedded_collector_does_not_end_while_a_file_arrives(home: Path) -> None:
    """Nor because of it: it ends when nothing more comes."""
    with CollectorProcess(home, {"ALLRANKS_IDLE_EXIT": "1"}) as collector:
        body = _BODY[: 8 * CHUNK_BYTES]
        with file_sender(collector.address) as sender:
            transfer = sender.transfer_of("a.ckpt", len(body))
            with _begun(collector) as one:
                assert sender.open("a.ckpt", len(body)) == FileAt(transfer, 0)
                one.send(one.writer.batch([events.pack(Kind.CLOSE, T0_NS, {"exit_code": 0})], is_urgent=True))
                anyio.run(one.hear_position, 2)
            began = time.monotonic()
            for begin in range(0, len(body), CHUNK_BYTES):
                sender.chunk(transfer, begin, body[begin : begin + CHUNK_BYTES])
                wait_until(
                    lambda: time.monotonic() - began > 0.4 * (begin // CHUNK_BYTES),  # noqa: B023
                    "more than its patience passes while the file comes",
                )
                assert collector.is_running
            sender.end(transfer, len(body))
            assert isinstance(sender.hear_end(), FileStored)
        wait_until(lambda: not collector.is_running, "it has ended")


def test_what_a_killed_rank_and_its_killed_shipper_left_comes_in(collector: CollectorProcess) -> None:
    job = Job(collector.home, collector.url, program="saving")
    with job.ranks(1, "wait", "300") as ranks:
        wait_until(lambda: ranks[0].progress.cells[PHASE] >= LEFT, "it has left its files", timeout_s=60.0)
        outbox = wait_until(lambda: next((collector.home / "spool").glob("outbox-*"), None), "there is an outbox")
        wait_until(lambda: shippers_of(outbox), "its shipper is there")
        ranks[0].kill()
        kill_shippers_of(outbox)
    done = f"the files in {outbox} are stored"
    wait_until(lambda: done in collector.log.read_text(), "the collector has had it shipped", timeout_s=60.0)
    assert not outbox.exists()
    files = collector.get(f"/api/runs/{RUN}/files")["files"]
    assert "checkpoints/epoch=1.ckpt" in {file["name"] for file in files}
    assert max(file["size"] for file in files) > 300 * CHUNK_BYTES


def test_what_is_left_at_the_end_of_the_collector_comes_in_with_its_last_look(home: Path) -> None:
    """In a pod it would be gone with it."""
    collector = CollectorProcess(home)
    with collector, _begun(collector):
        box = make_box(home, collector.address)
        box.write("a.ckpt", _BODY[:CHUNK_BYTES])
        # While it is in use it is let be; then there is no time for a look but the last one.
        with box.user():
            collector.send(signal.SIGSTOP)
        collector.send(signal.SIGTERM)
        collector.send(signal.SIGCONT)
        wait_until(lambda: not collector.is_running, "it has ended", timeout_s=60.0)
        assert not box.directory.exists()
        collector.start()
        assert [file["name"] for file in collector.get(f"/api/runs/{_RUN}/files")["files"]] == ["a.ckpt"]
