"""The collector of the ceiling: PULL, one transaction for all that waits, PUB."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import duckdb
import msgpack
import zmq

from benchmarks.ceiling import POSITION, SCHEMA, Message, decode
from benchmarks.workers.lines import answer, arguments

_MOST_MESSAGES = 200


class Collector:
    """Its database and its sockets."""

    def __init__(self, data: str, control: str) -> None:
        self._database = duckdb.connect(str(Path(os.environ["ALLRANKS_HOME"]) / "ceiling.duckdb"))
        self._database.execute("SET checkpoint_threshold = '512MB'")
        for statement in SCHEMA:
            self._database.execute(statement)
        context = zmq.Context()
        self._pull, self._pub = context.socket(zmq.PULL), context.socket(zmq.PUB)
        for socket in (self._pull, self._pub):
            socket.set(zmq.LINGER, 1000)
        self._pull.set(zmq.RCVHWM, 1000)
        self._pull.bind(data)
        self._pub.bind(control)
        self._key_numbers: dict[str, int] = {}
        self.commits = 0
        # From the first message to the last commit.
        self.began = 0.0
        self.ended = 0.0

    async def run(self, total: int, limit_s: float) -> None:
        stored = 0
        waiting: list[Message] = []
        with anyio.fail_after(limit_s):
            while stored < total:
                self._receive(waiting)
                if waiting:
                    self.began = self.began or time.perf_counter()
                    taken, waiting = waiting, []
                    positions, events = await anyio.to_thread.run_sync(self._commit, taken)
                    stored += events
                    self.commits += 1
                    for name, position in positions.items():
                        self._pub.send(name + POSITION.pack(position))
                elif not cast("int", self._pull.get(zmq.EVENTS)) & zmq.POLLIN:
                    with anyio.move_on_after(0.1):
                        await anyio.wait_readable(cast("int", self._pull.get(zmq.FD)))
        self.ended = time.perf_counter()

    def _receive(self, waiting: list[Message]) -> None:
        try:
            while len(waiting) < _MOST_MESSAGES:
                first, body = self._pull.recv_multipart(zmq.NOBLOCK)
                header: list[Any] = msgpack.unpackb(first)
                waiting.append((int(header[1][1:]), header, body))
        except zmq.Again:
            pass

    def _commit(self, messages: list[Message]) -> tuple[dict[bytes, int], int]:
        columns, positions, events = decode(messages, self._key_numbers)  # columns is read by name below
        assert columns
        self._database.begin()
        self._database.execute("INSERT INTO points SELECT * FROM columns")
        self._database.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?)",
            [(name.decode(), position) for name, position in positions.items()],
        )
        self._database.commit()
        return positions, events


def main() -> None:
    told = arguments()
    collector = Collector(told["data"], told["control"])
    print(json.dumps({"ready": True}), flush=True)
    anyio.run(collector.run, told["events"], told["limit_s"])
    answer({"commits": collector.commits, "receiving_s": collector.ended - collector.began})


if __name__ == "__main__":
    main()
