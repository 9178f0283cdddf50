"""A pipeline on real sockets in the test's own event loop, and a peer that speaks with it frame by frame."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import zmq
from tests.support.writers import T0_NS, HandWriter

from allranks_bus.addresses import Address
from allranks_bus.sockets import CollectorSockets
from allranks_bus.wire import Ack, Batch, Beat, Down, pack_batch_header, pack_beat, unpack_down
from allranks_collector.files import FileStore
from allranks_collector.pace import Patience
from allranks_collector.pipeline import Pipeline
from allranks_collector.store import Store

_ANSWER_S = 60.0


@contextlib.contextmanager
def ipc_address() -> Generator[Address]:
    """An address that nobody else has; short, as a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="ar") as folder:
        yield Address("ipc", path=str(Path(folder) / "data"))


@contextlib.asynccontextmanager
async def running(
    store: Store,
    address: Address,
    *,
    patience: Patience | None = None,
    commit_interval_s: float = 0.02,
    max_pending_bytes: int = 64 * 1024 * 1024,
    publish: Callable[[str, str, Mapping[str, Any]], None] | None = None,
    files: FileStore | None = None,
    max_file_bytes: int | None = None,
) -> AsyncGenerator[Pipeline]:
    """A pipeline that runs until the end of the block, and has committed what it received by then.

    Files come into the folder `files` beside the database, where no other is given.
    """
    async with CollectorSockets(address.data, address.control) as sockets:
        pipeline = Pipeline(
            store,
            sockets,
            files or FileStore(store.path.parent / "files"),
            patience=patience or Patience(),
            commit_interval_s=commit_interval_s,
            max_pending_bytes=max_pending_bytes,
            publish=publish or _tell_nobody,
            max_file_bytes=max_file_bytes,
        )
        async with anyio.create_task_group() as task_group:
            await task_group.start(pipeline.run)
            yield pipeline
            task_group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await pipeline.drain()


def _tell_nobody(_topic: str, _run: str, _data: Mapping[str, Any]) -> None:
    """Nobody looks on."""


class Peer:
    """A writer's two sockets."""

    def __init__(self, address: Address, writer: HandWriter) -> None:
        self.writer = writer
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._push, self._control = self._context.socket(zmq.PUSH), self._context.socket(zmq.SUB)
        self._nobody = b"nobody".ljust(8) + writer.name[8:]
        self._control.set(zmq.SUBSCRIBE, writer.name)
        self._control.set(zmq.SUBSCRIBE, self._nobody)
        self._push.set(zmq.SNDHWM, 0)  # the test must not wait for the collector
        self._push.connect(address.data)
        self._control.connect(address.control)

    def send_frames(self, *frames: bytes) -> None:
        self._push.send_multipart(frames)

    def send(self, batch: Batch) -> None:
        header = pack_batch_header(
            batch.writer, batch.first_seq, batch.count, batch.base, batch.sent_ns, is_urgent=batch.is_urgent
        )
        self.send_frames(header, batch.body)

    def beat(self, **status: Any) -> None:
        self.send_frames(*pack_beat(Beat(self.writer.name, self.writer.seq, 0, T0_NS, status)))

    async def meet(self) -> Ack:
        """Beats until it is answered: from then on it hears whatever it is told. Returns the last answer."""
        while True:
            self.beat()
            heard = await self._hear(50)
            if heard is not None:
                break
        # The answers to all beats but one are on their way still: before what is said to one who asks after them,
        # once it is said a second time, as those who are met at once may be answered in any order.
        for _ in range(2):
            self.send_frames(*pack_beat(Beat(self._nobody, 0, 0, T0_NS, {})))
            while (more := await self._hear(round(1000 * _ANSWER_S))) is not None and more[0] != self._nobody:
                heard = more
            assert more is not None, "the collector says nothing"
        assert isinstance(heard[1], Ack)
        return heard[1]

    async def hear(self) -> Down:
        """The next message; fails the test where none comes."""
        heard = await self._hear(round(1000 * _ANSWER_S))
        assert heard is not None, "the collector says nothing"
        assert heard[0] == self.writer.name
        return heard[1]

    async def hear_position(self, position: int) -> None:
        """Returns once the collector has acked all before `position`."""
        while True:
            message = await self.hear()
            if isinstance(message, Ack) and message.next_seq >= position:
                assert message.next_seq == position
                return

    async def _hear(self, timeout_ms: int) -> tuple[bytes, Down] | None:
        """To whom something is said, and what."""

        def poll() -> tuple[bytes, Down] | None:
            if not self._control.poll(timeout_ms):
                return None
            topic, frame = self._control.recv_multipart()
            return topic, unpack_down(frame)

        return await anyio.to_thread.run_sync(poll)

    def close(self) -> None:
        self._context.destroy(0)


@contextlib.contextmanager
def peer(address: Address, writer: HandWriter) -> Generator[Peer]:
    """A peer that is closed at the end."""
    found = Peer(address, writer)
    try:
        yield found
    finally:
        found.close()
