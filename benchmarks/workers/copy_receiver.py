"""Pulls a file out of a ZeroMQ socket, writes it, and brings it to the disk."""

from __future__ import annotations

import os
import time

import zmq

from benchmarks.workers.lines import answer, arguments

_QUEUE = 16


def main() -> None:
    told = arguments()
    context = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.set(zmq.RCVHWM, _QUEUE)
    pull.set(zmq.RCVTIMEO, round(1000 * told["limit_s"]))
    pull.bind(told["endpoint"])
    answer({"ready": True})
    with open(told["path"], "wb", buffering=0) as file:
        while piece := pull.recv():
            file.write(piece)
        written = time.time()
        os.fsync(file.fileno())
    answer({"written": written, "durable": time.time()})
    context.destroy(0)


if __name__ == "__main__":
    main()
