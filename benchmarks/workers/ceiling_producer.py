"""A producer of the ceiling: appends and sends as fast as it can, then waits for the last ack."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import zmq

from benchmarks.ceiling import CHUNK_RECORDS, NAME_BYTES, POSITION, TICK_S, framed, stream_name
from benchmarks.workers.lines import answer, arguments, await_word


class Producer:
    """Its file, its sockets, and its sender thread."""

    def __init__(self, number: int, data: str, control: str) -> None:
        self._name = stream_name(number)
        context = zmq.Context()
        self._push, self._sub = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        for socket in (self._push, self._sub):
            socket.set(zmq.LINGER, 0)
        self._push.set(zmq.SNDHWM, 64)
        self._push.connect(data)
        self._sub.subscribe(self._name)
        self._sub.connect(control)
        path = Path(os.environ["ALLRANKS_HOME"]) / f"producer-{number}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._lock = threading.Lock()
        self._tail: list[bytes] = []
        self._pack = msgpack.Packer().pack

    def log(self, step: int, values: dict[str, float]) -> None:
        record = framed(self._pack((0, step, time.time_ns(), values)))
        with self._lock:
            os.write(self._fd, record)
            self._tail.append(record)

    def send(self, events: int, deadline: float) -> None:
        """Sends until all `events` are acked, or the deadline (monotonic) has come."""
        sent = acked = 0
        while acked < events and time.monotonic() < deadline:
            with self._lock:
                tail = self._tail[:]
                self._tail.clear()
            for begin in range(0, len(tail), CHUNK_RECORDS):
                chunk = tail[begin : begin + CHUNK_RECORDS]
                self._push.send_multipart([self._pack((1, self._name, sent, len(chunk))), b"".join(chunk)])
                sent += len(chunk)
            while self._sub.poll(0):
                (acked,) = POSITION.unpack(self._sub.recv()[NAME_BYTES:])
            time.sleep(TICK_S)


def main() -> None:
    told: dict[str, Any] = arguments()
    producer = Producer(told["number"], told["data"], told["control"])
    events: int = told["events"]
    values = {f"metric/{index}": 0.1 * index for index in range(told["keys"])}
    time.sleep(0.3)  # until the subscription has arrived
    answer({"ready": True})
    await_word()
    sender = threading.Thread(target=producer.send, args=(events, time.monotonic() + told["limit_s"]))
    begun = time.time()
    sender.start()
    for step in range(events):
        producer.log(step, values)
    logged = time.time()
    sender.join()
    answer({"begun": begun, "logged": logged, "acked": time.time()})


if __name__ == "__main__":
    main()
