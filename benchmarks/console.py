"""What a program pays for the capture of what it prints, against the same program without; and how soon it is seen.

All of it with the collector up, as later programs on a host find it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks import viewers
from benchmarks.figures import Bound, Figure, Measured, Options, at_least, at_most
from benchmarks.processes import ROOT, Worker, environment, run_worker, running_collector, temporary_home
from benchmarks.samples import median_noise, spread

LINES = 100_000
LINE_BYTES = 100
_DEADLINE_S = 120.0
# Before it prints: longer than a tee takes to start, and than what a run does in its first second.
_PAUSE_S = 1.5
_LOOK_S = 0.05


@dataclass(frozen=True)
class Pair:
    """One program with capture, and without; and what became of what it printed.

    Attributes:
        with_s, without_s: from before its first print to its end.
        printing_with_s, printing_without_s: of that, until all was printed and flushed.
        stored_s: from its end until all lines could be read.
        is_same: whether the file behind it holds the same bytes.
    """

    with_s: float
    without_s: float
    printing_with_s: float
    printing_without_s: float
    stored_s: float
    is_same: bool

    @property
    def ratio(self) -> float:
        return self.with_s / self.without_s

    @property
    def printing_ratio(self) -> float:
        return self.printing_with_s / self.printing_without_s


def measure(options: Options) -> Measured:
    """Medians over pairs of fresh processes that run by turns; then how soon a line is seen by those who look."""
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for measured in (
        _printing(options.pick(15, 2), options.pick(5, 1)),
        _starting(options.pick(20, 2)),
        _seeing(options.pick(100, 10)),
    ):
        figures += measured.figures
        details |= measured.details
    return Measured(figures, details)


# -- print -----------------------------------------------------------------------------------------------------------


def _printing(pairs: int, flushed_pairs: int) -> Measured:
    with temporary_home() as home:
        with running_collector(home) as collector:
            whole, flushed = (
                [_print_pair(home, collector.endpoint.http, pair, is_flushed=is_flushed) for pair in range(count)]
                for count, is_flushed in ((pairs, False), (flushed_pairs, True))
            )
        with duckdb.connect(str(home / "allranks.duckdb"), read_only=True) as connection:
            ((stored,),) = connection.execute("SELECT count(*) FROM lines WHERE stream = 1").fetchall()
    what = f"print of {LINE_BYTES} bytes × {LINES:,} to a file"
    both = [*whole, *flushed]
    figures = [
        _ratio(f"{what}, until the program's end: with capture over without", whole, at_most(1.5)),
        _ratio(f"{what}, each flushed, until the program's end: with capture over without", flushed),
        Figure(
            f"{what}, until all is printed: with capture over without",
            median(pair.printing_ratio for pair in whole),
            "×",
            noise=median_noise([pair.printing_ratio for pair in whole]),
            note=f"each flushed {median(pair.printing_ratio for pair in flushed):.2f} ×",
        ),
    ]
    printed = LINES * len(both)
    figures += [
        Figure("lines stored of lines printed", 100 * stored / printed, "%", at_least(100), note=f"of {printed:,}"),
        Figure("files that hold other bytes than without", sum(not pair.is_same for pair in both), "", at_most(0)),
    ]
    return Measured(figures, {"printed": list(map(asdict, whole)), "flushed": list(map(asdict, flushed))})


def _ratio(what: str, pairs: Sequence[Pair], bound: Bound | None = None) -> Figure:
    ratios = [pair.ratio for pair in pairs]
    with_s, without_s = (
        median(each) for each in zip(*((pair.with_s, pair.without_s) for pair in pairs), strict=True)
    )
    stored_s = median(pair.stored_s for pair in pairs)
    note = f"{1e3 * with_s:.0f} over {1e3 * without_s:.0f} ms; stored {stored_s:.2f} s after the end"
    return Figure(what, median(ratios), "×", bound, median_noise(ratios), note)


def _print_pair(home: Path, base: str, pair: int, *, is_flushed: bool) -> Pair:
    run = f"print-{'flushed' if is_flushed else 'whole'}-{pair}"
    taken: dict[str, tuple[float, float]] = {}
    shown: dict[str, bytes] = {}
    stored_s = 0.0
    for console in ("off", "fd") if pair % 2 else ("fd", "off"):
        out = home / "out"
        taken[console] = _print(home, out, run, console, is_flushed=is_flushed)
        if console == "fd":
            stored_s = _await_line(base, run, LINES)
        shown[console] = out.read_bytes()
    (with_s, printing_with_s), (without_s, printing_without_s) = taken["fd"], taken["off"]
    is_same = shown["fd"] == shown["off"] and len(shown["fd"]) == LINES * LINE_BYTES
    return Pair(with_s, without_s, printing_with_s, printing_without_s, stored_s, is_same)


def _print(home: Path, out: Path, run: str, console: str, *, is_flushed: bool) -> tuple[float, float]:
    """Runs a program whose standard output is the file `out`: seconds from before its first print to its end, and
    until all was printed.
    """
    told: dict[str, Any] = {"run": run, "console": console, "lines": LINES, "line_bytes": LINE_BYTES}
    told |= {"pause_s": _PAUSE_S, "is_flushed": is_flushed, "times": str(home / "times")}
    with open(out, "wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers.console_print", json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            cwd=ROOT,
            env=environment(home),
            start_new_session=True,
        )
    # Not Popen.wait, which looks again after ever longer sleeps.
    fd = os.pidfd_open(process.pid)
    has_ended = select.select([fd], [], [], _DEADLINE_S)[0]
    ended = time.monotonic()
    os.close(fd)
    if not has_ended:
        process.kill()
    if process.wait() or not has_ended:
        raise RuntimeError(f"the program that prints ended with {process.returncode}")
    times = json.loads((home / "times").read_text())
    return ended - times["begun"], times["printed"] - times["begun"]


def _await_line(base: str, run: str, count: int) -> float:
    """Seconds until the last of `count` lines of a run can be read."""
    begun = time.monotonic()
    while time.monotonic() < begun + _DEADLINE_S:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{base}/api/runs/{run}/logs?limit=1", timeout=10) as response:
                lines = json.load(response)["lines"]
            if lines and lines[-1]["line"] >= count - 1:
                return time.monotonic() - begun
        time.sleep(_LOOK_S)
    raise RuntimeError(f"not all lines of {run} have arrived")


# -- starting --------------------------------------------------------------------------------------------------------


def _starting(count: int) -> Measured:
    with temporary_home() as home, running_collector(home):
        inits: list[tuple[float, float]] = []
        for number in range(count):
            taken: dict[str, float] = {}
            for console in ("off", "fd") if number % 2 else ("fd", "off"):
                taken[console] = run_worker("console_init", {"console": console}, home=home, timeout_s=60)["init"]
            inits.append((taken["fd"], taken["off"]))
    tees: list[dict[str, Any]] = []
    for _ in range(count):
        with temporary_home() as home:
            told = {"bytes": LINES * LINE_BYTES, "line_bytes": LINE_BYTES}
            tees.append(run_worker("console_tee", told, home=home, timeout_s=60))
    costs = [1e3 * (longer - shorter) for longer, shorter in inits]
    ready = spread([tee["ready"] for tee in tees], 1e3)
    most = max(tee["most_bytes"] for tee in tees) / 1e6
    at_first = median(tee["at_first_bytes"] for tee in tees) / 1e6
    figures = [
        Figure(
            "init() with a collector up, what the capture adds",
            median(costs),
            "ms",
            noise=median_noise(costs),
            note=f"to {1e3 * median(shorter for _, shorter in inits):.1f} ms",
        ),
        Figure(
            "a tee, from its start until it reads", ready.median, "ms", at_most(100), note=f"slowest {ready.max:.0f}"
        ),
        Figure("a tee's memory at its peak", most, "MB", at_most(15), note=f"{at_first:.1f} MB before it has copied"),
    ]
    return Measured(figures, {"inits_s": inits, "tees": tees})


# -- seeing ----------------------------------------------------------------------------------------------------------


def _seeing(lines: int) -> Measured:
    path = viewers.browser()
    eyes = {"one who reads over HTTP": _seen_ms(lines, None)}
    if path is not None:
        eyes["the page, in Chromium"] = _seen_ms(lines, path)
    # Without a browser there is only the one who does what the page does.
    *_, page = eyes
    figures: list[Figure] = []
    for who, seen in eyes.items():
        ms = spread(seen)
        bound = at_most(500) if who is page else None
        note = f"p99 {ms.p99:.0f}, slowest {ms.max:.0f} ms; {lines} lines, one at a time"
        figures.append(Figure(f"from print on a rank to {who}, median", ms.median, "ms", bound, note=note))
    return Measured(figures, {"seen_ms": eyes})


def _seen_ms(lines: int, browser: str | None) -> list[float]:
    """Milliseconds from the print of each line until it is seen in this browser; or, with None, without one."""
    run, first = "seen", "[the first line]"
    with temporary_home() as home, running_collector(home) as collector:
        base = collector.endpoint.http
        with Worker("console_rank", {"run": run, "first": first, "lines": lines}, home=home) as rank:
            rank.hear(60)
            _await_line(base, run, 1)
            viewing = viewers.in_browser(browser, base, run, first) if browser else viewers.over_http(base, run)
            with viewing as viewer:
                rank.say()
                seen_at = viewer.seen_at(lines, time.monotonic() + _DEADLINE_S)
            rank.say()
            printed_at = rank.hear(60)["printed_at"]
    return [1e3 * (seen_at[number] - printed_at[number]) for number in range(lines)]
