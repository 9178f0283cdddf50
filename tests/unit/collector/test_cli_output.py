"""What the command line prints: plain in pipes, harmless whatever a rank says, JSON that is JSON."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from allranks_collector.cli import output


def rendered(renderable: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=output.PIPE_WIDTH).print(renderable)
    return stream.getvalue()


def test_text_of_ranks_cannot_steer_the_terminal() -> None:
    assert output.clean("a\x1b[31mb\r\nc\x07é") == "a·[31mb··c·é"


def test_text_of_ranks_is_never_markup() -> None:
    shown = rendered(output.table(("name",), [("[bold]x[/bold] [link=http://e]y[/link]",)]))
    assert "[bold]x[/bold] [link=http://e]y[/link]" in shown


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.console().print(output.table(("name",), [("x" * 300,)]))
    assert "x" * 300 in capsys.readouterr().out


RANK = {
    "rank": 17, "state": "unreachable", "last_step": 120_000, "host": "vm", "pid": 28961, "attempt": 1, "events": 194,
    "reason": "rank 2 sent nothing for 30 s: it is stuck, or too slow",
}  # fmt: skip


def on_terminal(columns: int) -> list[str]:
    """The lines of a table of one rank on a terminal of this width."""
    console, stream = output.console(), io.StringIO()
    console.file, console.width = stream, columns
    console.print(output.ranks_table([RANK], 0.0))
    return stream.getvalue().splitlines()


def test_a_narrow_terminal_wraps_a_reason_and_no_state() -> None:
    _header, _rule, first, *more = on_terminal(90)
    assert {"17", "unreachable", "120000", "28961"} <= set(first.split())
    assert more
    assert all(len(line) <= 90 for line in (first, *more))


def test_on_a_terminal_that_is_too_narrow_a_row_is_one_line_and_whole() -> None:
    header, _rule, row = on_terminal(40)
    assert header.split() == ["rank", "state", "step", "seen", "host", "pid", "attempt", "events", "why"]
    assert str(RANK["reason"]) in row


def test_nothing_is_a_dash() -> None:
    assert output.cell(None).plain == output.cell("").plain == "–"
    assert output.cell(0).plain == "0"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [1, None], "ü": "é"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": [1, None], "ü": "é"}
    with pytest.raises(ValueError, match="JSON compliant"):
        output.print_json(float("nan"))


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.error_line("it went\n  wrong\x1b[0m")
    assert capsys.readouterr().err == "allranks: it went wrong·[0m\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2 h"), (180_000, "2 d"), (864_000, "10 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert output.duration(seconds) == words


def test_age_of_nothing_is_nothing() -> None:
    assert output.age(None) is None
    assert output.age(100.0, now=130.0) == "30 s"


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, None), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (50 << 20, "50 MiB"), (3 << 50, "3072.0 TiB")],
)
def test_sizes(count: int | None, words: str | None) -> None:
    assert output.size(count) == words


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        ({}, None),
        ({"exit_code": 0}, None),
        ({"exit_code": 3}, "exit code 3"),
        ({"signal": "SIGKILL", "exit_code": -9}, "signal SIGKILL"),
        ({"reason": "pid gone"}, "pid gone"),
        ({"exception": {"type": "ValueError", "message": "no"}, "exit_code": 1}, "ValueError: no"),
        ({"exception": "ValueError: no"}, "ValueError: no"),
    ],
)
def test_how_a_rank_ended(rank: dict[str, object], words: str | None) -> None:
    assert output.ending(rank) == words


def test_ranks_are_a_row_each() -> None:
    ranks = [
        {
            "rank": 0,
            "state": "running",
            "last_step": 7,
            "last_seen": 95.0,
            "host": "h",
            "pid": 12,
            "attempt": 1,
            "events": 9,
        },
        {"rank": 1, "state": "expected"},
    ]
    lines = rendered(output.ranks_table(ranks, now=100.0)).splitlines()
    row = next(line for line in lines if "running" in line)
    assert row.split() == ["0", "running", "7", "5", "s", "h", "12", "1", "9", "–"]
    assert any("expected" in line for line in lines)


def test_runs_show_how_many_ranks_have_come() -> None:
    run = {
        "id": "abc",
        "name": "n",
        "project": "p",
        "state": "running",
        "ranks_seen": 3,
        "world_size": 4,
        "created_at": 1.0,
    }
    assert "3/4" in rendered(output.runs_table([run], now=2.0))
