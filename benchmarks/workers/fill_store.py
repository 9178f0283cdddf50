"""Fills a database as a collector does, through its own ingest: runs of many ranks that log ten keys each step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allranks_bus import events, records
from allranks_bus.events import METRICS_HEAD, STEP_TAG, Kind
from allranks_bus.wire import Batch
from allranks_collector.ingest import Ingest
from allranks_collector.settings import load_settings
from allranks_collector.store import Store
from benchmarks.workers.lines import answer, arguments

_T0_NS = 1_700_000_000_000_000_000
_STEP_NS = 200_000_000
# As many steps of each rank come in one commit: other keys and ranks lie between a curve's points, as in life.
_STEPS_PER_COMMIT = 50


class Rank:
    """One rank's log, made batch by batch."""

    def __init__(self, run: str, rank: int, ranks: int, names: list[str]) -> None:
        identity = {"run": run, "project": "bench", "launch": "1", "rank": rank, "world_size": ranks}
        identity |= {"host": f"host-{rank // 8}", "pid": 1000 + rank}
        self._name = os.urandom(16)
        self._rank = rank
        self._next_seq = 0
        self._opening = [
            events.pack(Kind.OPEN, _T0_NS, identity),
            events.pack(Kind.KEYSET, _T0_NS, 0, names),
        ]
        self._pack = events.metrics_packer(len(names))
        self._tag = events.values_tag(0, len(names))
        self._count = len(names)

    def batch(self, steps: range) -> Batch:
        """The records of these steps; with what opens the log before the first."""
        payloads = [*self._opening, *(self._metrics(step) for step in steps)]
        self._opening = []
        first, self._next_seq = self._next_seq, self._next_seq + len(payloads)
        return Batch(self._name, first, len(payloads), 0, _T0_NS, b"".join(map(records.frame, payloads)))

    def _metrics(self, step: int) -> bytes:
        # A curve that falls, with ranks apart and some unrest, so that nothing compresses better than in life.
        value = 1 / (1 + step / 1000) + self._rank / 1000 + (step * 2_654_435_761 % 1000) / 50_000
        values = [value + index for index in range(self._count)]
        return self._pack(METRICS_HEAD, _T0_NS + step * _STEP_NS, STEP_TAG, step, self._tag, *values)

    def close(self) -> Batch:
        body = records.frame(events.pack(Kind.CLOSE, _T0_NS, {"exit_code": 0}))
        return Batch(self._name, self._next_seq, 1, 0, _T0_NS, body)


def batches(told: dict[str, Any]) -> Iterator[list[Batch]]:
    """What each commit takes."""
    names = [f"metric/{index}" for index in range(told["keys"])]
    ranks = [Rank(told["run"], rank, told["ranks"], names) for rank in range(told["ranks"])]
    for begin in range(0, told["steps"], _STEPS_PER_COMMIT):
        steps = range(begin, min(begin + _STEPS_PER_COMMIT, told["steps"]))
        yield [rank.batch(steps) for rank in ranks]
    yield [rank.close() for rank in ranks]


def main() -> None:
    told = arguments()
    settings = load_settings({}, os.environ)
    Path(settings.home).mkdir(parents=True, exist_ok=True)
    points = 0
    with Store.open(settings.database, memory_limit_mb=settings.memory_limit_mb) as store:
        ingest = Ingest(store)
        for run in told["runs"]:
            for waiting in batches(run):
                points += ingest.commit(waiting).points
    answer({"points": points})


if __name__ == "__main__":
    main()
