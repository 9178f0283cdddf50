"""How often a healthy rank is accused: 64 of them on a busy machine, long at their checkpoints, while the collector
is killed, stopped and started again.

An accusation is any state but `running` and `finished` that is stored of a rank, and any alert.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
from tests.support.collector import CollectorProcess
from tests.support.waiting import wait_until

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, free_port, temporary_home

_ACCUSED = frozenset({"stalled", "unreachable", "dead", "failed"})
_START_S, _END_S = 420.0, 240.0
# When the collector is away, as shares of the whole time, and for how long.
_KILLED_AT, _STOPPED_AT = (0.2, 0.45, 0.7), 0.9
_AWAY_S = (2.0, 20.0)
# When ranks save, as shares of the whole time; each of them at its own moment within.
_SAVES_AT = ((0.1, 0.2), (0.35, 0.5), (0.65, 0.85))


@dataclass(frozen=True)
class Job:
    """A run of healthy ranks.

    Attributes:
        is_together: each of its steps ends for all ranks at once, and only rank 0 saves.
        is_announced: who saves has said so with `run.expect`, and not by a section.
        is_at_once: all ranks save at the same moment.
    """

    run: str
    step_s: float
    is_together: bool = False
    is_announced: bool = False
    is_at_once: bool = True
    ranks: int = 16


JOBS = (
    Job("alone", 0.2, is_at_once=False),
    Job("alone-announced", 0.6, is_announced=True),
    Job("together", 0.3, is_together=True),
    Job("together-announced", 0.1, is_together=True, is_announced=True),
)


@dataclass(frozen=True)
class Accusation:
    """What was held against a rank, seconds after the beginning."""

    run: str
    rank: int | None
    what: str
    after_s: float
    reason: str


def measure(options: Options) -> Measured:
    """The accusations of ten minutes, and whether all ranks came to their end."""
    seconds, save_s = options.pick(600, 75), options.pick(60, 20)
    with temporary_home() as home:
        began_ns = time.time_ns()
        with CollectorProcess(home) as collector:
            steps = _train(collector, seconds, save_s)
            _await_end(collector)
            collector.stop()
        with duckdb.connect(str(collector.database), read_only=True) as stored:
            states, alerts = _stored(stored)
    found = accusations(states, alerts, began_ns)
    finished = sum(state == "finished" for state in {row[:2]: row[2] for row in states}.values())
    ranks = sum(job.ranks for job in JOBS)
    what = f"{ranks} healthy ranks for {seconds // 60 or 1} min on busy cores"
    figures = [
        Figure(
            f"{what}: false accusations",
            len(found),
            "",
            at_most(0),
            note=f"checkpoints of {save_s} s, {len(_KILLED_AT)} restarts of the collector; {sum(steps):,} steps",
        ),
        Figure(f"{what}: ranks that came to their end", finished, "", at_least(ranks)),
    ]
    return Measured(figures, {"accusations": [asdict(each) for each in found], "steps": steps})


def accusations(
    states: Sequence[tuple[str, int, str, int, str | None]],
    alerts: Sequence[tuple[str, int | None, int, str]],
    began_ns: int,
) -> list[Accusation]:
    """What is held against ranks, by time.

    Args:
        states: (run, rank, state, since when in ns, detail as JSON), as they followed each other.
        alerts: (run, rank, when in ns, body as JSON).
    """
    found = [
        Accusation(run, rank, state, (since_ns - began_ns) / 1e9, str(json.loads(detail or "{}").get("reason")))
        for run, rank, state, since_ns, detail in states
        if state in _ACCUSED
    ]
    found += [Accusation(run, rank, "alert", (at_ns - began_ns) / 1e9, body) for run, rank, at_ns, body in alerts]
    return sorted(found, key=lambda each: each.after_s)


def saves_at(job: Job, rank: int, seconds: float) -> list[float]:
    """When a rank saves, in seconds from the beginning."""
    draw = random.Random(f"{job.run} {0 if job.is_at_once else rank}")
    return [draw.uniform(low, high) * seconds for low, high in _SAVES_AT]


def _train(collector: CollectorProcess, seconds: float, save_s: float) -> list[int]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_busy_cores())
        workers = [worker for job in JOBS for worker in _start(stack, collector, job, seconds, save_s)]
        for worker in workers:
            worker.hear(_START_S)
        begun = time.monotonic()
        for worker in workers:
            worker.say(f"{begun} {begun + seconds}")
        _trouble(collector, begun, seconds)
        return [worker.hear(begun + seconds + _END_S - time.monotonic())["steps"] for worker in workers]


def _start(
    stack: contextlib.ExitStack, collector: CollectorProcess, job: Job, seconds: float, save_s: float
) -> list[Worker]:
    told: dict[str, Any] = {**asdict(job), "port": free_port(), "save_s": save_s}
    return [
        stack.enter_context(
            Worker(
                "healthy_rank",
                {**told, "saves_at": saves_at(job, rank, seconds)},
                home=collector.home,
                ALLRANKS_URL=collector.url,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(job.ranks),
            )
        )
        for rank in range(job.ranks)
    ]


def _trouble(collector: CollectorProcess, begun: float, seconds: float) -> None:
    """Kills the collector now and then, and starts it again; at last it only stands still for a while."""
    away = random.Random(0)
    for share in _KILLED_AT:
        _sleep_until(begun + share * seconds)
        collector.kill()
        time.sleep(min(0.1 * seconds, away.uniform(*_AWAY_S)))
        collector.start()
    _sleep_until(begun + _STOPPED_AT * seconds)
    collector.send(signal.SIGSTOP)
    time.sleep(min(0.1 * seconds, away.uniform(*_AWAY_S)))
    collector.send(signal.SIGCONT)
    _sleep_until(begun + seconds)


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))


@contextlib.contextmanager
def _busy_cores() -> Generator[None]:
    """Each core has something else to do."""
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def _await_end(collector: CollectorProcess) -> None:
    def has_ended() -> bool:
        rows = [row for job in JOBS for row in collector.ranks(job.run).values()]
        return len(rows) == sum(job.ranks for job in JOBS) and not any(row["state"] == "running" for row in rows)

    wait_until(has_ended, "all ranks have ended", timeout_s=_END_S)
    collector.await_drained(timeout_s=_END_S)


def _stored(
    connection: duckdb.DuckDBPyConnection,
) -> tuple[list[tuple[str, int, str, int, str | None]], list[tuple[str, int | None, int, str]]]:
    states = connection.execute(
        "SELECT r.id, w.rank, s.state, s.since_ns, s.detail FROM states s JOIN writers w USING (writer)"
        " JOIN runs r USING (run) WHERE w.role <> 'console' ORDER BY s.rowid"
    ).fetchall()
    alerts = connection.execute(
        "SELECT r.id, w.rank, e.time_ns, e.body FROM events e JOIN runs r USING (run)"
        " LEFT JOIN writers w USING (writer) WHERE e.kind IN ('alert', 'alerted') ORDER BY e.event"
    ).fetchall()
    return states, alerts
