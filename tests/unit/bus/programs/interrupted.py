"""Appends for a while under a storm of signals whose handlers raise, or append themselves; a thread reads along.

Arguments: the root, `raise` or `append`. Prints what it counted as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from allranks._log import RankLog
from allranks_bus import records

_STORM_S, _STORM_AT_MOST_S = 1.5, 40.0
_ENOUGH = 200
# Makes segments of 32 KiB, each with one mark: what is rare in a training happens hundreds of times here.
_CAP_BYTES = 128 * 1024
PLAIN, HANDLED, LAST = b"plain" * 20, b"from the handler", b"last"


class Interrupted(BaseException):
    """As KeyboardInterrupt, but nobody else's."""


class Follower(threading.Thread):
    """Does what a publisher does: reads on from where it is, and releases what it has read."""

    def __init__(self, log: RankLog) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.problems: list[str] = []
        self.seq = 0
        self._log = log

    def run(self) -> None:
        """Ends behind the record LAST."""
        while not self.seen[LAST.decode()]:
            count, body = self._log.read(self.seq)
            payloads = [body[begin:end] for begin, end in records.scan(body)]
            if len(payloads) != count or sum(map(len, payloads)) + 8 * count != len(body):
                self.problems.append(f"{count} records were promised at {self.seq}, and {len(payloads)} came")
                return
            for payload in payloads:
                self.seen[payload.decode() if payload in (PLAIN, HANDLED, LAST) else str(payload[1])] += 1
            self.seq += count
            self._log.release(self.seq)
            if not count:
                time.sleep(0.0005)


def main() -> None:
    """The storm comes from a thread, so that signals arrive at any point, also within the handling of one."""
    log = RankLog(Path(sys.argv[1]), bytes(16), {}, cap_bytes=_CAP_BYTES)
    data = {f"metric/{index}": float(index) for index in range(10)}
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    kept = interruptions = 0
    handled: list[bool] = []
    # False where nothing of this program would catch it.
    may_raise = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if sys.argv[2] != "raise":
            handled.append(log.append(HANDLED))
        elif may_raise:
            raise Interrupted

    storm_ends = threading.Event()

    def storm(thread: int) -> None:
        while not storm_ends.wait(0.0002):
            signal.pthread_kill(thread, signal.SIGUSR1)

    follower = Follower(log)
    follower.start()
    sender = threading.Thread(target=storm, args=(main_thread,))
    signal.signal(signal.SIGUSR1, on_signal)
    began = time.monotonic()

    def is_stormy() -> bool:
        """For a while, and until enough has happened: a busy machine lets fewer signals through."""
        lasted_s = time.monotonic() - began
        return lasted_s < _STORM_S or (interruptions + sum(handled) <= _ENOUGH and lasted_s < _STORM_AT_MOST_S)

    sender.start()
    while is_stormy():
        try:
            may_raise = True
            while is_stormy():
                try:
                    log.metrics(data, None)
                except KeyError:
                    log.define(tuple(data))
                if log.append(PLAIN):
                    kept += 1
                else:
                    time.sleep(0.001)
            may_raise = False
        except Interrupted:
            may_raise = False
            interruptions += 1
    storm_ends.set()
    sender.join()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    while not log.append(LAST):
        time.sleep(0.01)
    follower.join()
    counted = {
        "end": log.end,
        "seq": follower.seq,
        "seen": follower.seen,
        "problems": follower.problems,
        "refused": log.refused,
        "kept": kept,
        "handled": sum(handled),
        "interruptions": interruptions,
        "segments": len(list(log.directory.glob("*.seg"))),
        "base": log.base,
    }
    os.write(1, json.dumps(counted).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
