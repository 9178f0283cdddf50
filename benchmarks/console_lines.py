"""What ranks print, through the collector: lines per second, and what progress bars leave in the database.

The consoles' spools lie ready and are shipped over real sockets as fast as the collector takes them, from two
processes; a line counts once it is committed and acked, and the database is asked afterwards whether it is there.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
from tqdm import tqdm

from allranks_bus.tee.copying import CHUNK_BYTES, GATHER_S
from benchmarks.figures import Bound, Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, running_collector, temporary_home
from benchmarks.samples import median_noise
from benchmarks.workers.console_writers import LINE_BYTES

RANKS = 64
LINES = 1_000_000
LINES_PER_S = 200_000
# Progress bars, each for a second.
UPDATES_PER_S = 1000
UPDATES_PER_BAR = 1000
BARS = 30
_BAR_COLUMNS = 100
_PROCESSES = 2
_LIMIT_S = 180.0


@dataclass(frozen=True)
class Taken:
    """One turn.

    Attributes:
        seconds: from the first byte that is shipped to the last ack.
        behind_s: from the last that was printed to the last ack.
        cpu_s: the collector's CPU time meanwhile.
        lines, text_bytes: what the database holds afterwards, of lines that have ended.
        database_bytes: the size of the database's file once the collector has closed it.
        open_bytes: the same with its log, before that.
    """

    seconds: float
    behind_s: float
    cpu_s: float
    resends: int
    lines: int
    text_bytes: int
    database_bytes: int
    open_bytes: int


def measure(options: Options) -> Measured:
    """Rates as medians of several turns, of plain lines and others; then progress bars at the pace of a training."""
    turns, lines, bars = options.pick(5, 1), options.pick(LINES, LINES // 10), options.pick(BARS, 3)
    details: dict[str, list[Taken]] = {}
    figures: list[Figure] = []
    for what, ranks, is_coloured, bound in (
        ("1 rank", 1, False, at_least(LINES_PER_S)),
        (f"{RANKS} ranks", RANKS, False, at_least(LINES_PER_S)),
        (f"{RANKS} ranks, with colours", RANKS, True, None),
    ):
        each = lines // ranks
        taken = details[what] = [lines_of(ranks, each, is_coloured=is_coloured) for _ in range(turns)]
        name = f"lines of {LINE_BYTES} bytes of {what}, stored and acked"
        figures.append(_rate(name, "lines/s", taken, ranks * each, ranks * each * LINE_BYTES, bound))
    with temporary_home() as folder:
        recorded = folder / "bars.json"
        for what, is_nested in (("tqdm, two bars in one another", True), ("tqdm", False)):
            printed = RANKS * record_bars(recorded, bars, is_nested=is_nested)
            left = 1 if is_nested else bars
            taken = details[what] = [bars_of(recorded, left, is_live=False) for _ in range(turns)]
            name = f"updates of {what}, {RANKS} ranks, stored and acked"
            figures.append(_rate(name, "updates/s", taken, RANKS * bars * UPDATES_PER_BAR, printed))
        live = bars_of(recorded, bars, is_live=True)
        record_bars(recorded, 0)
        silent = bars_of(recorded, 0, is_live=True)
    figures += _live_figures(live, silent, printed, bars * UPDATES_PER_BAR // UPDATES_PER_S)
    details |= {"tqdm, live": [live], "silent": [silent]}
    return Measured(figures, {what: [asdict(turn) for turn in taken] for what, taken in details.items()})


def lines_of(ranks: int, lines: int, *, is_coloured: bool = False) -> Taken:
    """`lines` lines of each of so many ranks."""
    # What a tee has gathered when it keeps it, where all ranks together print at the rate of the bound.
    chunk_bytes = min(CHUNK_BYTES, round(LINES_PER_S * LINE_BYTES * GATHER_S / ranks))
    taken = _turn(ranks, {"lines": lines, "chunk_bytes": chunk_bytes, "is_coloured": is_coloured})
    wanted = ranks * lines
    if (taken.lines, taken.text_bytes) != (wanted, wanted * (LINE_BYTES - 1)):
        raise RuntimeError(f"{taken.lines:,} lines are stored, and not {wanted:,}, or not as they were printed")
    return taken


def bars_of(bar: Path, lines: int, *, is_live: bool) -> Taken:
    """The recorded bars on each of RANKS ranks, of which so many lines stay; with `is_live` at their own pace."""
    taken = _turn(RANKS, {"bar": str(bar), "per_chunk": round(UPDATES_PER_S * GATHER_S), "is_live": is_live})
    if taken.lines != RANKS * lines:
        raise RuntimeError(f"{taken.lines:,} lines are stored, and not {RANKS * lines:,}")
    return taken


def record_bars(path: Path, bars: int, *, is_nested: bool = False) -> int:
    """Writes what real progress bars print, one after the other, as a JSON array of their updates; how many bytes.

    Each goes up to UPDATES_PER_BAR. With `is_nested` they disappear, and stand below a bar that counts them.
    """
    screen = _Screen()
    look: dict[str, Any] = {"file": screen, "ncols": _BAR_COLUMNS, "mininterval": 0, "ascii": False}
    updates: list[str] = []
    outer = tqdm(total=bars, desc="epochs", **look) if is_nested else None
    for number in range(bars):
        bar = tqdm(total=UPDATES_PER_BAR, desc=f"epoch {number}", leave=not is_nested, **look)
        for step in range(UPDATES_PER_BAR):
            bar.set_postfix_str(f"loss={1 / (step + 1):.4f}", refresh=False)
            bar.update()
            updates.append(screen.taken())
        bar.close()
        if outer is not None:
            outer.update()
    if outer is not None:
        outer.close()
    if updates:
        updates[-1] += screen.taken()
    path.write_text(json.dumps(updates))
    return len("".join(updates).encode())


class _Screen(io.StringIO):
    """What a progress bar is shown on."""

    def taken(self) -> str:
        """What has been printed since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def _turn(ranks: int, told: dict[str, Any]) -> Taken:
    processes = min(_PROCESSES, ranks)
    each = ranks // processes
    told = {"ranks": each, "world_size": ranks, "limit_s": _LIMIT_S, "bar": "", "is_live": False, **told}
    with temporary_home() as home:
        database = home / "allranks.duckdb"
        with running_collector(home) as collector, contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(Worker("console_writers", {"first": number * each, **told}, home=home))
                for number in range(processes)
            ]
            for worker in workers:
                worker.hear(120)
            cpu_s = collector.cpu_s
            for worker in workers:
                worker.say()
            answers = [worker.hear(_LIMIT_S + 60) for worker in workers]
            cpu_s = collector.cpu_s - cpu_s
            open_bytes = sum(path.stat().st_size for path in home.glob(f"{database.name}*") if path.is_file())
        with duckdb.connect(str(database), read_only=True) as connection:
            ((lines, size),) = connection.execute(
                "SELECT count(*), coalesce(sum(strlen(text)), 0) FROM lines WHERE stream != 0"
            ).fetchall()
        begun = min(answer["begun"] for answer in answers)
        printed, acked = (max(answer[name] for answer in answers) for name in ("printed", "acked"))
        return Taken(
            acked - begun,
            acked - printed,
            cpu_s,
            sum(answer["resends"] for answer in answers),
            lines,
            int(size),
            database.stat().st_size,
            open_bytes,
        )


def _rate(what: str, unit: str, turns: Sequence[Taken], count: int, size: int, bound: Bound | None = None) -> Figure:
    rates = [count / turn.seconds for turn in turns]
    cores = median(turn.cpu_s / turn.seconds for turn in turns)
    note = f"{size / 1e6 / median(turn.seconds for turn in turns):.0f} MB/s, the collector's CPU {cores:.2f} cores"
    return Figure(what, median(rates), unit, bound, median_noise(rates), note)


def _live_figures(live: Taken, silent: Taken, printed: int, seconds: int) -> list[Figure]:
    what = f"tqdm at {UPDATES_PER_S:,} updates/s on {RANKS} ranks for {seconds} s"
    stored = live.database_bytes - silent.database_bytes
    return [
        Figure(
            f"{what}: bytes stored of bytes printed",
            100 * stored / printed,
            "%",
            at_most(2, "1/50"),
            note=f"{stored / 1e6:.1f} of {printed / 1e6:.0f} MB; what tqdm prints, cut as tees do, from "
            f"{_PROCESSES} processes; before the last checkpoint {live.open_bytes / 1e6:.0f} MB",
        ),
        Figure(f"{what}: the collector's CPU", live.cpu_s / live.seconds, "cores"),
        Figure(f"{what}: backlog when it ends", live.behind_s, "s", note=f"{live.seconds:.1f} s in all"),
    ]
