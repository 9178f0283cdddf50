"""What real programs print for a terminal comes out as the lines that were seen at the end."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte
import pyte.modes
import pytest
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from tests.unit.collector.test_lines import Fed
from tqdm import tqdm


def _lines(printed: bytes, cut: int | None = None) -> list[str]:
    """All lines, once nothing follows."""
    size = cut or len(printed)
    fed = Fed(*(printed[at : at + size] for at in range(0, len(printed), size)))
    for _, when, _, text in fed.stream.end():
        fed.kept += [(when, line) for line in text.split("\n")]
    return fed.final


def _bare(lines: list[str]) -> list[str]:
    return [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in lines]


# As on a terminal, though it is none.
_BAR: dict[str, Any] = {
    "ncols": 40,
    "mininterval": 0,
    "miniters": 1,
    "ascii": False,
    "bar_format": "{desc}{n_fmt}|{bar}|",
}


def _tqdm(record: io.StringIO) -> None:
    outer = tqdm(total=3, desc="epoch", position=0, file=record, **_BAR)
    inner = tqdm(total=50, desc="batch", position=1, file=record, **_BAR)
    for epoch in range(3):
        inner.reset()
        for _ in range(50):
            inner.update()
        tqdm.write(f"epoch {epoch} is over", file=record)
        outer.update()
    inner.close()
    outer.close()
    record.write("done\n")


def _tqdm_that_leaves(record: io.StringIO) -> None:
    """As Lightning's bars do: one stays, the one below it goes at the end of each epoch."""
    for epoch in tqdm(range(2), file=record, **_BAR, desc="fit"):
        for _ in tqdm(range(20), file=record, **_BAR, leave=False, position=1, desc=f"val {epoch}"):
            pass
    record.write("done\n")


def _console(record: io.StringIO) -> Console:
    return Console(file=record, force_terminal=True, width=60, legacy_windows=False, color_system="truecolor")


def _rich_progress(record: io.StringIO) -> None:
    console = _console(record)
    with Progress("{task.description}", "{task.completed}", console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(f"[red]task {n}", total=30) for n in range(3)]
        for step in range(30):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
            if step == 15:
                progress.console.print("half way")
    console.print("done")


def _rich_live(record: io.StringIO) -> None:
    console = _console(record)
    with Live(console=console, auto_refresh=False) as live:
        for rows in range(1, 6):
            table = Table("epoch", "loss")
            for row in range(rows):
                table.add_row(str(row), f"[green]{row / 2}")
            live.update(table, refresh=True)
    console.print("done")


_SEEN: list[tuple[Callable[[io.StringIO], None], list[str]]] = [
    (
        _tqdm,
        [
            *(f"epoch {n} is over" for n in range(3)),
            # The one that closes first is left above.
            "batch50|" + "█" * 31 + "|",
            "epoch3|" + "█" * 32 + "|",
            "done",
        ],
    ),
    (_tqdm_that_leaves, ["fit2|" + "█" * 34 + "|", "done"]),
    (_rich_progress, ["half way", "task 0 30", "task 1 30", "task 2 30", "done"]),
    (
        _rich_live,
        [
            "┏━━━━━━━┳━━━━━━┓",
            "┃ epoch ┃ loss ┃",
            "┡━━━━━━━╇━━━━━━┩",
            *(f"│ {row}     │ {row / 2}  │" for row in range(5)),
            "└───────┴──────┘",
            "done",
        ],
    ),
]


@pytest.mark.parametrize(("program", "seen"), _SEEN, ids=lambda value: getattr(value, "__name__", ""))
def test_what_was_seen_at_the_end_is_kept(program: Callable[[io.StringIO], None], seen: list[str]) -> None:
    record = io.StringIO()
    program(record)
    printed = record.getvalue().encode()
    whole = _lines(printed)
    assert [line for line in _bare(whole) if line] == seen
    screen = pyte.Screen(80, 60)
    screen.set_mode(pyte.modes.LNM)
    pyte.ByteStream(screen).feed(printed)
    assert [line.rstrip() for line in screen.display if line.strip()] == seen
    for cut in (1, 7, 4096):
        assert _lines(printed, cut) == whole


def test_colours_of_rich_are_kept() -> None:
    record = io.StringIO()
    _rich_progress(record)
    assert "\x1b[31mtask 0\x1b[0m" in "".join(itertools.islice(_lines(record.getvalue().encode()), 2))


def test_ls_keeps_its_colours(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    told = ["ls", "--color=always", "-1", str(tmp_path)]
    printed = subprocess.run(
        told, env={"LS_COLORS": "di=01;34", "PATH": "/bin:/usr/bin"}, stdout=-1, check=True
    ).stdout
    assert _lines(printed) == ["file", "\x1b[1;34mfolder\x1b[0m"]
