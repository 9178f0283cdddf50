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
# A progress bar that begins anew after so many updates.
UPDATES_PER_S = 1000
UPDATES_PER_BAR = 1000
BARS_S = 30
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
    """Rates as medians of several turns, of one rank and of 64; then progress bars, as fast as they are printed."""
    seconds, lines = options.pick(BARS_S, 3), options.pick(LINES, LINES // 10)
    details: dict[str, Any] = {}
    figures: list[Figure] = []
    for ranks in (1, RANKS):
        turns = [plain(ranks, lines // ranks) for _ in range(options.pick(5, 1))]
        count = lines // ranks * ranks
        what = f"lines of {LINE_BYTES} bytes of {ranks} {'rank' if ranks == 1 else 'ranks'}, stored and acked"
        figures.append(_rate(what, "lines/s", turns, count, count * LINE_BYTES, at_least(LINES_PER_S)))
        details[f"plain, {ranks}"] = [asdict(turn) for turn in turns]
    with temporary_home() as folder:
        bar = folder / "bar.json"
        printed = RANKS * record_bar(bar, seconds * UPDATES_PER_S)
        turns = [bars(bar, seconds, is_live=False) for _ in range(options.pick(3, 1))]
        updates = RANKS * seconds * UPDATES_PER_S
        figures.append(
            _rate(f"updates of tqdm, {RANKS} ranks, stored and acked", "updates/s", turns, updates, printed)
        )
        live = bars(bar, seconds, is_live=True)
        record_bar(bar, 0)
        empty = bars(bar, 0, is_live=True)
    details |= {"tqdm": [asdict(turn) for turn in turns], "tqdm, live": asdict(live), "opened": asdict(empty)}
    return Measured([*figures, *_live_figures(live, empty, printed, seconds)], details)


def plain(ranks: int, lines: int) -> Taken:
    """`lines` plain lines of each of so many ranks."""
    # What a tee has gathered when it keeps it, where all ranks together print at the rate of the bound.
    chunk_bytes = min(CHUNK_BYTES, round(LINES_PER_S * LINE_BYTES * GATHER_S / ranks))
    taken = _turn(ranks, {"lines": lines, "chunk_bytes": chunk_bytes})
    if (taken.lines, taken.text_bytes) != (ranks * lines, ranks * lines * (LINE_BYTES - 1)):
        raise RuntimeError(
            f"{taken.lines:,} lines are stored, and not {ranks * lines:,}, or not as they were printed"
        )
    return taken


def bars(bar: Path, seconds: int, *, is_live: bool) -> Taken:
    """A progress bar on each of RANKS ranks; with `is_live` at its own pace, else as fast as it is taken."""
    told = {"bar": str(bar), "per_chunk": round(UPDATES_PER_S * GATHER_S), "is_live": is_live}
    taken = _turn(RANKS, told)
    if taken.lines != (wanted := RANKS * seconds * UPDATES_PER_S // UPDATES_PER_BAR):
        raise RuntimeError(f"{taken.lines:,} lines are stored of {wanted:,} bars")
    return taken


def record_bar(path: Path, updates: int) -> int:
    """Writes what a real progress bar prints, update by update, as a JSON array; how many bytes these are."""
    shown: list[str] = []

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            shown.append(text)
            return len(text)

    for number in range(updates // UPDATES_PER_BAR):
        bar = tqdm(
            total=UPDATES_PER_BAR,
            desc=f"epoch {number}",
            file=Screen(),
            ncols=_BAR_COLUMNS,
            mininterval=0,
            ascii=False,
        )
        for step in range(UPDATES_PER_BAR):
            bar.set_postfix_str(f"loss={1 / (step + 1):.4f}", refresh=False)
            bar.update()
        bar.close()
    path.write_text(json.dumps(shown))
    return len("".join(shown).encode())


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


def _live_figures(live: Taken, empty: Taken, printed: int, seconds: int) -> list[Figure]:
    what = f"tqdm at {UPDATES_PER_S:,} updates/s on {RANKS} ranks for {seconds} s"
    stored = live.database_bytes - empty.database_bytes
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
