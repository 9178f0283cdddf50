"""A run on one screen: each rank is there once, every line fits, and what ranks say moves no cursor."""

from __future__ import annotations

from typing import Any

import pytest

from allranks_collector.cli.top_view import (
    CELLS,
    Loss,
    Seen,
    choose_loss,
    grid,
    header,
    legend,
    screen,
    slowest,
    troubled,
)

SIZES = [8, 64, 1024]
WIDTHS = [40, 80, 120, 200]


def rank(number: int, state: str = "running", **more: Any) -> dict[str, Any]:
    return {"rank": number, "state": state, "host": f"node-{number // 8}", "pid": 9, "last_step": 100, **more}


def seen(ranks: list[dict[str, Any]], **more: Any) -> Seen:
    run = {
        "id": "run-1",
        "name": "a name",
        "state": "running",
        "last_step": 1234,
        "created_at": 0.0,
        "world_size": len(ranks),
    }
    return Seen(run=run, ranks=ranks, now=60.0, **more)


def line(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"rank": number, "host": "h", "text": text, **more}


def cells(rows: list[str]) -> str:
    """The cells of a grid, without the labels of its rows."""
    return "".join("".join(row.split()[1:]) for row in rows if row.lstrip()[:1].isdecimal())


@pytest.mark.parametrize("ranks", SIZES)
@pytest.mark.parametrize("width", WIDTHS)
def test_each_rank_has_its_cell_in_order(ranks: int, width: int) -> None:
    states = ["dead" if number == ranks - 3 else "running" for number in range(ranks)]
    rows = [row.plain for row in grid(states, width, 1000)]
    assert max(map(len, rows)) <= width
    assert cells(rows).index("✖") == ranks - 3
    assert len(cells(rows)) == ranks


@pytest.mark.parametrize("ranks", SIZES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [12, 24, 60])
def test_a_screen_fits_its_terminal(ranks: int, width: int, height: int) -> None:
    everybody = [rank(number, list(CELLS)[number % 7], last_step=number) for number in range(ranks)]
    told = [line(0, "x" * 500), line(1, "日本語" * 80), line(2, "tab\t" * 90)] * 20
    loss = Loss("train/loss", 1234, 0.5, 0.4, 0.6)
    lines = screen(seen(everybody, lines=told, pace=12.5, loss=loss, problem="no answer " * 30), width, height)
    assert len(lines) <= height
    assert max(text.cell_len for text in lines) <= width
    assert "\n" not in "".join(text.plain for text in lines)


def test_on_80_columns_1024_ranks_and_the_console_are_seen_at_once() -> None:
    everybody = [rank(number) for number in range(1024)]
    lines = [text.plain for text in screen(seen(everybody, lines=[line(3, f"said {n}") for n in range(50)]), 80, 40)]
    assert len(cells(lines[1:])) == 1024
    assert lines[-1] == "h:3 said 49"


def test_a_cell_of_several_ranks_shows_the_worst() -> None:
    states = ["running"] * 1024
    states[777] = "dead"
    rows = [row.plain for row in grid(states, 80, 4)]
    assert len(rows) == 5
    assert cells(rows).count("✖") == 1
    assert rows[-1] == "a cell is 4 ranks, and shows the worst of them"


def test_the_legend_counts_the_worst_first() -> None:
    states = ["running"] * 60 + ["dead", "expected", "expected", "a new state"]
    (told,) = legend(states, 120)
    assert told.plain == "✖ 1 dead  · 2 expected  ■ 60 running  ◇ 1 a new state"
    assert legend(["stalled"], 80, is_unicode=False)[0].plain == "^ 1 stalled"


def test_the_header_tells_how_the_run_does() -> None:
    loss = Loss("train/loss", 1234, 0.5, 0.25, 0.75)
    (told,) = header(seen([rank(0), rank(1, "expected")], pace=12.5, loss=loss), 200)
    assert told.plain == (
        "a name  run-1  running  1 of 2 ranks  step 1,234  12.5 steps/s  train/loss 0.5 (0.25 … 0.75)  for 60 s"
    )


def test_who_is_in_trouble_is_told_with_the_reason() -> None:
    everybody = [
        rank(0),
        rank(1, "stalled"),
        rank(2, "dead", signal="SIGKILL", ended_at=2.0),
        rank(3, "failed", exception={"type": "ValueError", "message": "x\x1b[2J"}, ended_at=1.0),
    ]
    assert [text.plain for text in troubled(seen(everybody))] == [
        "rank 2 dead node-0, step 100: signal SIGKILL",
        "rank 3 failed node-0, step 100: ValueError: x·[2J",
        "rank 1 stalled node-0, step 100",
    ]
    many = troubled(seen([rank(number, "dead") for number in range(1024)]))
    assert many[-1].plain == "and 1,020 more"


def test_who_is_behind_is_told_and_nobody_for_a_moment() -> None:
    everybody = [rank(number, last_step=1000 - (number == 5) * 300 - (number == 6)) for number in range(8)]
    assert [text.plain for text in slowest(seen(everybody))] == ["behind: rank 5 by 300 steps"]
    assert slowest(seen(everybody, pace=200.0)) == []


def test_what_ranks_print_moves_nothing() -> None:
    told = [line(0, "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\x07end", host="\x1b[5Ahost")]
    last = screen(seen([rank(0)], lines=told), 80)[-1]
    assert last.plain == "·[5Ahost:0 red ·end"
    assert "color(1)" in [str(span.style) for span in last.spans]


def test_before_any_rank_has_come() -> None:
    assert "no rank has come yet" in [text.plain for text in screen(seen([]), 80, 24)]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["lr", "loss", "val/loss"], "loss"),
        (["val/loss", "train/loss"], "train/loss"),
        (["train_loss", "val_loss", "losses"], "train_loss"),
        (["accuracy"], None),
        ([], None),
    ],
)
def test_the_loss_is_found_by_its_name(names: list[str], chosen: str | None) -> None:
    assert choose_loss([{"key": name, "kind": "metric"} for name in names]) == chosen
