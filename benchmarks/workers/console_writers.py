"""What some ranks have printed, as their tees keep it, on its way to the collector; for any number of ranks at once.

The spools and what ships them are the real ones; the bytes are made here, or were printed by a real progress bar.
Left out are the ranks' processes and their tees: the chunks are as large as a tee makes them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from allranks_bus import events
from allranks_bus.addresses import parse_address
from allranks_bus.courier import Courier
from allranks_bus.events import Kind
from allranks_bus.home import read_endpoint
from allranks_bus.spool import SpoolWriter
from allranks_bus.tee import payloads
from allranks_bus.tee.copying import GATHER_S
from allranks_bus.tee.keeping import SEGMENT_BYTES
from allranks_bus.tee.spec import STDOUT
from benchmarks.workers.lines import answer, arguments, await_word

RUN = "console"
LINE_BYTES = 100
_SLICE_S = 0.001
# A training's publisher looks so often at what its tee has kept.
_TICK_S = 0.1
_OPEN_S = 60.0


class Rank:
    """One rank's console: its spool, and what ships it."""

    def __init__(self, rank: int, world_size: int, home: Path, url: str) -> None:
        name = os.urandom(16)
        identity = {
            "run": RUN,
            "project": "bench",
            "launch": "1",
            "rank": rank,
            "world_size": world_size,
            "host": f"host-{rank // 8}",
            "pid": 1000 + rank,
            "role": "console",
        }
        opening = events.pack(Kind.OPEN, time.time_ns(), identity)
        self.rank = rank
        self._log = SpoolWriter(
            home / "printed", name, lambda: payloads.stamped(opening, time.time_ns()), segment_bytes=SEGMENT_BYTES
        )
        self._courier = Courier(name, self._log)
        self._courier.connect(parse_address(url))

    def keep(self, chunk: bytes) -> None:
        if not self._log.append(payloads.console(time.time_ns(), STDOUT, chunk)):
            raise SystemExit(f"the spool takes nothing: {self._log.problem}")

    def end(self) -> None:
        """Nobody can print any more."""
        self._log.seal(payloads.close(time.time_ns()))

    def ship(self) -> None:
        """Sends what it may, and takes in the acks that have come."""
        self._courier.hear()
        self._courier.pump()

    @property
    def is_stored(self) -> bool:
        self._courier.hear()
        return self._courier.shipment.is_done

    @property
    def resends(self) -> int:
        return self._courier.shipment.resends

    def close(self) -> None:
        self._courier.close()
        self._log.remove()


def line_chunks(rank: int, count: int, chunk_bytes: int, *, is_coloured: bool = False) -> Iterator[bytes]:
    """`count` lines of LINE_BYTES, no two alike, in whole chunks of about `chunk_bytes`."""
    level = "\x1b[32mINFO\x1b[0m" if is_coloured else "INFO"
    each = max(1, chunk_bytes // LINE_BYTES)
    for begin in range(0, count, each):
        yield b"".join(_line(level, rank, number) for number in range(begin, min(begin + each, count)))


def _line(level: str, rank: int, number: int) -> bytes:
    said = f"{level} train: rank {rank} epoch {number // 1000} step {number} loss {1 / (number + 1):.6f} "
    return f"{said:.<{LINE_BYTES - 1}}\n".encode()


def bar_chunks(path: Path, per_chunk: int) -> list[bytes]:
    """What a progress bar has printed, a JSON array of its updates, in chunks of `per_chunk` of them."""
    updates = [update.encode() for update in json.loads(path.read_text())]
    return [b"".join(updates[begin : begin + per_chunk]) for begin in range(0, len(updates), per_chunk)]


def chunks_of(told: Mapping[str, Any], rank: int) -> Iterable[bytes]:
    """What a rank prints."""
    if told["bar"]:
        return bar_chunks(Path(told["bar"]), told["per_chunk"])
    return line_chunks(rank, told["lines"], told["chunk_bytes"], is_coloured=told["is_coloured"])


def ship_all(ranks: Sequence[Rank], deadline: float) -> None:
    """Returns once everything is stored."""
    while not all(rank.is_stored for rank in ranks):
        if time.monotonic() >= deadline:
            raise SystemExit("not everything is stored in time")
        for rank in ranks:
            rank.ship()
        time.sleep(_SLICE_S)


def print_on(ranks: Sequence[Rank], chunks: Sequence[bytes]) -> None:
    """Keeps one chunk of each rank every GATHER_S, and ships it every _TICK_S; the ranks take turns."""
    actions: list[tuple[float, Callable[[], None]]] = []
    for index, rank in enumerate(ranks):
        phase = index / len(ranks)
        actions += [((turn + phase) * GATHER_S, partial(rank.keep, chunk)) for turn, chunk in enumerate(chunks)]
        ticks = round(len(chunks) * GATHER_S / _TICK_S)
        actions += [((turn + phase) * _TICK_S, rank.ship) for turn in range(ticks)]
    actions.sort(key=lambda action: action[0])
    begun = time.monotonic()
    for at, act in actions:
        wait_s = begun + at - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        act()


def main() -> None:
    told: dict[str, Any] = arguments()
    home = Path(os.environ["ALLRANKS_HOME"])
    endpoint = read_endpoint(home)
    if endpoint is None:
        raise SystemExit("there is no collector")
    numbers = range(told["first"], told["first"] + told["ranks"])
    ranks = [Rank(rank, told["world_size"], home, endpoint.url) for rank in numbers]
    ship_all(ranks, time.monotonic() + _OPEN_S)
    live = list(chunks_of(told, 0)) if told["is_live"] else []
    if not told["is_live"]:
        for rank in ranks:
            for chunk in chunks_of(told, rank.rank):
                rank.keep(chunk)
            rank.end()
    answer({"ready": True})
    await_word()
    begun = time.monotonic()
    if told["is_live"]:
        print_on(ranks, live)
        for rank in ranks:
            rank.end()
    printed = time.monotonic()
    ship_all(ranks, printed + told["limit_s"])
    acked = time.monotonic()
    for rank in ranks:
        rank.close()
    answer({"begun": begun, "printed": printed, "acked": acked, "resends": sum(rank.resends for rank in ranks)})


if __name__ == "__main__":
    main()
