"""Doubles for tests: a database with chosen content, and a service that stands still."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from allranks_collector.live import Hub
from allranks_collector.stats import SeriesStats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allranks_collector.queries import LiveStats
    from allranks_collector.store import Store

# 2023-11-14T22:13:20Z
T0_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


class DatabaseBuilder:
    """Fills a store run by run. Numbers are given out as the ingest does; times count from `T0_NS`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._last: dict[str, int] = {}
        self._series: dict[tuple[int, str, str], int] = {}

    def _next(self, name: str) -> int:
        self._last[name] = self._last.get(name, 0) + 1
        return self._last[name]

    def _insert(self, table: str, *values: object) -> None:
        marks = ", ".join("?" * len(values))
        with self.store.transaction() as connection:
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", list(values))

    def run(
        self,
        id: str = "run-1",  # noqa: A002
        *,
        project: str = "p",
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        created_s: float = 0.0,
        attempts: int = 1,
    ) -> int:
        """A run with its attempts, numbered from 1 and a minute apart; its number."""
        run = self._next("run")
        created_ns = T0_NS + round(created_s * SECOND_NS)
        self._insert("runs", run, id, project, group, name, None, json.dumps(list(tags)), created_ns)
        for attempt in range(1, attempts + 1):
            self._insert("attempts", run, attempt, f"launch-{attempt}", created_ns + (attempt - 1) * 60 * SECOND_NS)
        return run

    def writer(
        self,
        run: int,
        rank: int = 0,
        *,
        attempt: int = 1,
        world_size: int = 1,
        role: str = "rank",
        host: str = "host-a",
        pid: int | None = None,
        state: str = "running",
        detail: Mapping[str, Any] | None = None,
        opened_s: float = 0.0,
        last_step: int | None = None,
        last_s: float = 0.0,
    ) -> int:
        """A writer with its position and first state; its number."""
        writer = self._next("writer")
        opened_ns, last_ns = T0_NS + round(opened_s * SECOND_NS), T0_NS + round(last_s * SECOND_NS)
        self._insert(
            "writers",
            *(writer, f"{writer:032x}", run, attempt, rank, rank % 8, world_size, role, host),
            *(pid or 1000 + writer, "{}", opened_ns),
        )
        self._insert("positions", writer, 10, last_step, last_ns, 0)
        self.state(writer, state, detail, since_s=opened_s)
        return writer

    def state(
        self, writer: int, state: str, detail: Mapping[str, Any] | None = None, *, since_s: float = 0.0
    ) -> None:
        """The writer's next state, from this second on."""
        body = json.dumps(dict(detail)) if detail else None
        self._insert("states", writer, T0_NS + round(since_s * SECOND_NS), state, body)

    def series(self, writer: int, key: str, kind: str = "metric") -> int:
        """The number of this writer's series, made if need be."""
        if (writer, key, kind) not in self._series:
            number = self._series[writer, key, kind] = self._next("series")
            self._insert("series", number, writer, key, kind)
        return self._series[writer, key, kind]

    def points(
        self,
        writer: int,
        key: str,
        values: Sequence[float],
        *,
        steps: Sequence[int] | None = None,
        seconds: Sequence[float] | None = None,
        kind: str = "metric",
    ) -> int:
        """Points of one series, at steps 0, 1, 2 … and a second apart if not said otherwise; the series' number."""
        series = self.series(writer, key, kind)
        count = len(values)
        at = np.asarray(range(count) if steps is None else steps, dtype=np.int64)
        offsets = np.asarray(range(count) if seconds is None else seconds, dtype=np.float64)
        columns = {
            "step": at,
            "time_ns": T0_NS + np.round(offsets * SECOND_NS).astype(np.int64),
            "value": np.asarray(values, dtype=np.float64),
        }
        with self.store.transaction() as connection:
            connection.register("added", columns)
            # DuckDB reads NaN in numpy columns as NULL.
            connection.execute(
                "INSERT INTO points SELECT ?, step, time_ns, coalesce(value, 'nan'::DOUBLE) FROM added", [series]
            )
            connection.unregister("added")
            connection.execute(
                "UPDATE positions SET last_step = greatest(coalesce(last_step, ?), ?) WHERE writer = ?",
                [int(at.max()), int(at.max()), writer],
            )
        return series

    def entry(self, table: str, run: int, writer: int, key: str, value: object, *, second: float = 0.0) -> None:
        """An entry of `config` or `summary`."""
        self._insert(table, run, writer, T0_NS + round(second * SECOND_NS), key, json.dumps(value))

    def define(self, run: int, name: str, *, step_metric: str | None = None, summary: str | None = None) -> None:
        """A definition of a metric."""
        self._insert("definitions", run, T0_NS, name, step_metric, summary)

    def event(
        self, run: int, writer: int, kind: str, body: Mapping[str, Any] | None = None, *, second: float = 0.0
    ) -> int:
        """An event; its number."""
        event = self._next("event")
        time_ns = T0_NS + round(second * SECOND_NS)
        self._insert("events", event, run, writer, time_ns, kind, json.dumps(dict(body or {})))
        return event

    def line(
        self,
        writer: int,
        text: str,
        *,
        stream: int = 1,
        line: int = 0,
        second: float = 0.0,
    ) -> int:
        """A line that has ended; its number."""
        number = self._next("number")
        self._insert("lines", number, writer, stream, line, T0_NS + round(second * SECOND_NS), text)
        return number

    def open_line(self, writer: int, text: str, *, stream: int = 1, line: int = 0, second: float = 0.0) -> None:
        """A line that may still change."""
        time_ns = T0_NS + round(second * SECOND_NS)
        self._insert("open_lines", writer, stream, line, time_ns, text)

    def file(
        self,
        run: int,
        name: str,
        digest: str,
        size: int,
        *,
        host: str = "host-a",
        rank: int | None = None,
        modified_s: float = 0.0,
        stored_s: float = 0.0,
    ) -> None:
        """A file; what is in it is the caller's to put into its place."""
        times = (T0_NS + round(modified_s * SECOND_NS), T0_NS + round(stored_s * SECOND_NS))
        transfer = f"{self._next('transfer'):032x}"
        self._insert("files", run, host, name, digest, size, *times, rank, transfer)

    def surroundings(self, writer: int, body: Mapping[str, Any]) -> None:
        """What a rank says of its surroundings."""
        self._insert("surroundings", writer, T0_NS, json.dumps(dict(body)))

    def object(self, writer: int, key: str, value: object, *, step: int = 0, second: float = 0.0) -> None:
        """A value that is not a number."""
        series = self.series(writer, key, "object")
        self._insert("objects", series, step, T0_NS + round(second * SECOND_NS), json.dumps(value))


@dataclass
class StillLive:
    """A `LiveView` of a service that stands still: what it says is what a test has put into it."""

    hub: Hub = field(default_factory=Hub)
    stats: SeriesStats = field(default_factory=SeriesStats)
    seen: dict[int, int] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def last_seen(self, writer: int) -> int | None:
        return self.seen.get(writer)

    def arriving(self, run_id: str) -> list[dict[str, Any]]:
        return self.files.get(run_id, [])

    def series_stats(self) -> LiveStats:
        return self.stats.columns()

    def status(self) -> Mapping[str, Any]:
        return self.state

    def ready(self) -> tuple[bool, str]:
        return not self.problem, self.problem

    def counters(self) -> Mapping[str, float]:
        return self.figures
