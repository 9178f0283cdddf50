"""Pushes a file into a ZeroMQ socket, a mebibyte at a time."""

from __future__ import annotations

import time

import zmq

from benchmarks.workers.lines import answer, arguments, await_word

_PIECE_BYTES = 1024 * 1024
_QUEUE = 16


def main() -> None:
    told = arguments()
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.set(zmq.SNDHWM, _QUEUE)
    push.set(zmq.SNDTIMEO, round(1000 * told["limit_s"]))
    push.connect(told["endpoint"])
    answer({"ready": True})
    await_word()
    begun = time.time()
    with open(told["path"], "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            push.send(piece)
    push.send(b"")
    answer({"begun": begun})
    push.close(linger=round(1000 * told["limit_s"]))
    context.term()


if __name__ == "__main__":
    main()
