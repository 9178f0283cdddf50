"""Many simulated writers in one process: each with the two sockets, the log and the shipping of a real one.

What is left out of a real writer is its process, its spool's files and its thread: the loop here ticks for each
writer ten times a second, spread evenly, and sends what has been logged since as one batch.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from pathlib import Path
from typing import Any

import zmq

from allranks_bus import events, records
from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import ProtocolError
from allranks_bus.events import Kind
from allranks_bus.home import read_endpoint
from allranks_bus.shipping import Shipment
from allranks_bus.wire import Ack, Beat, pack_batch_header, pack_beat, unpack_down
from benchmarks.samples import spread
from benchmarks.workers.lines import answer, arguments, await_word

_TICK_S = 0.1
_BEAT_S = 1.0
# The loop wakes so often; an ack is seen as late as that after its arrival.
_SLICE_S = 0.01


class MemoryLog:
    """A log in memory, of one segment that begins with OPEN: what `Shipment` needs of a spool."""

    def __init__(self, opening: bytes) -> None:
        self.base = 0
        self._records = [records.frame(opening)]

    @property
    def end(self) -> int:
        return len(self._records)

    def append(self, payload: bytes) -> None:
        self._records.append(records.frame(payload))

    def read(self, seq: int) -> tuple[int, bytes]:
        waiting = self._records[seq:]
        return len(waiting), b"".join(waiting)

    def release(self, seq: int) -> None:
        """Keeps all: a resend must always be possible here."""


class Writer:
    """One rank's writer."""

    def __init__(self, context: zmq.Context[Any], address: Address, rank: int, world_size: int, keys: int) -> None:
        self.name = os.urandom(16)
        self.rank = rank
        identity = {
            "run": "many-writers",
            "project": "bench",
            "launch": "1",
            "rank": rank,
            "world_size": world_size,
            "host": f"host-{rank // 8}",
            "pid": 1000 + rank,
            "role": "rank",
        }
        self.log = MemoryLog(events.pack(Kind.OPEN, time.time_ns(), identity))
        names = [f"metric/{index}" for index in range(keys)]
        self.log.append(events.pack(Kind.KEYSET, time.time_ns(), 0, names))
        self.shipment = Shipment(self.log)
        self.step = -1
        self.beat_at = 0.0
        self.waiting: deque[tuple[int, float]] = deque()
        self._push = context.socket(zmq.PUSH)
        self.control = context.socket(zmq.SUB)
        for socket in (self._push, self.control):
            socket.set(zmq.LINGER, 0)
        self._push.set(zmq.SNDHWM, 64)
        self.control.set(zmq.SUBSCRIBE, self.name)
        self._push.connect(address.data)
        self.control.connect(address.control)

    def log_metrics(self, values: list[float]) -> None:
        self.step += 1
        self.log.append(events.pack_metrics(time.time_ns(), self.step, 0, values))
        self.waiting.append((self.log.end, time.monotonic()))

    def beat(self, **more: Any) -> None:
        status = {
            "run": "many-writers",
            "project": "bench",
            "rank": self.rank,
            "step": self.step,
            "dropped": 0,
            **more,
        }
        beat = Beat(self.name, self.log.end, self.log.base, time.time_ns(), {**status, "host": "host", "pid": 1})
        self._send(*pack_beat(beat))

    def pump(self, now: float) -> None:
        while (parcel := self.shipment.next(now)) is not None:
            header = pack_batch_header(self.name, parcel.first_seq, parcel.count, parcel.base, time.time_ns())
            if not self._send(header, parcel.body):
                return
            self.shipment.sent_one(parcel, now)

    def hear(self, delays: list[float]) -> None:
        """Takes in the acks that have come; what each event waited goes to `delays`."""
        while True:
            try:
                message = unpack_down(self.control.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                return
            except ProtocolError:
                continue
            if isinstance(message, Ack):
                now = time.monotonic()
                self.shipment.on_ack(message, now)
                while self.waiting and self.waiting[0][0] <= self.shipment.acked:
                    delays.append(now - self.waiting.popleft()[1])

    def _send(self, header: bytes, body: bytes) -> bool:
        try:
            self._push.send_multipart((header, body), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


class Crowd:
    """The writers of this process, and their poller."""

    def __init__(self, told: dict[str, Any]) -> None:
        endpoint = read_endpoint(Path(os.environ["ALLRANKS_HOME"]))
        if endpoint is None:
            raise SystemExit("there is no collector")
        context: zmq.Context[Any] = zmq.Context(io_threads=1)
        context.set(zmq.MAX_SOCKETS, 16_384)
        address, ranks = parse_address(endpoint.url), range(told["first"], told["first"] + told["writers"])
        self.writers = [Writer(context, address, rank, told["world_size"], told["keys"]) for rank in ranks]
        self.delays: list[float] = []
        self._values = [0.1 * index for index in range(told["keys"])]
        self._by_socket = {writer.control: writer for writer in self.writers}
        self._poller = zmq.Poller()
        for writer in self.writers:
            self._poller.register(writer.control, zmq.POLLIN)

    @property
    def unacked(self) -> int:
        return sum(writer.log.end - writer.shipment.acked for writer in self.writers)

    def hear(self) -> None:
        for socket, _ in self._poller.poll(0):
            self._by_socket[socket].hear(self.delays)

    def open(self, deadline: float) -> None:
        """Sends what makes the writers known, and waits until all of it is acked."""
        for writer in self.writers:
            writer.pump(time.monotonic())
        while self.unacked:
            if time.monotonic() >= deadline:
                raise SystemExit(f"{self.unacked} records that open writers are not acked")
            time.sleep(_SLICE_S)
            self.hear()
            for writer in self.writers:
                writer.pump(time.monotonic())

    def run(self, begin: float, until: float) -> None:
        """Logs once per tick for each writer, from `begin` to `until` (monotonic)."""
        count = len(self.writers)
        gap_s = _TICK_S / count
        turn = 0
        while (now := time.monotonic()) < until:
            while begin + turn * gap_s <= now:
                self._tick(self.writers[turn % count], now)
                turn += 1
            self.hear()
            time.sleep(max(0.0, min(_SLICE_S, until - time.monotonic())))

    def _tick(self, writer: Writer, now: float) -> None:
        writer.log_metrics(self._values)
        if now >= writer.beat_at:
            writer.beat_at = now + _BEAT_S
            writer.beat()
        writer.pump(now)

    def settle(self, deadline: float) -> None:
        """Waits for the last acks."""
        while self.unacked and time.monotonic() < deadline:
            time.sleep(_SLICE_S)
            self.hear()
            for writer in self.writers:
                writer.pump(time.monotonic())


def allow_many_files() -> None:
    """Lets this process have as many sockets as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))


def main() -> None:
    told = arguments()
    allow_many_files()
    crowd = Crowd(told)
    crowd.open(time.monotonic() + 60)
    crowd.delays.clear()
    answer({"ready": True})
    await_word()
    begun = time.monotonic()
    crowd.run(begun, begun + told["seconds"])
    ended = time.monotonic()
    behind = crowd.unacked
    crowd.settle(ended + 30)
    times = os.times()
    answer(
        {
            "events": sum(writer.step + 1 for writer in crowd.writers),
            "seconds": ended - begun,
            "behind": behind,
            "settled_s": time.monotonic() - ended,
            "unacked": crowd.unacked,
            "resends": sum(writer.shipment.resends for writer in crowd.writers),
            "ack_ms": spread(crowd.delays, 1e3).as_dict(),
            "cpu_s": times.user + times.system,
        }
    )


if __name__ == "__main__":
    main()
