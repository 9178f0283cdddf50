"""`allranks logs`: all of it, the end of it, and what comes; and nothing in it can act on the reader's terminal."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_bus.http_client import Refused
from allranks_collector import cli
from allranks_collector.cli import logs
from allranks_collector.cli.common import UsageError
from allranks_collector.escapes import shown
from allranks_collector.queries import LogRequest, find_run, list_logs, parse_attempt, parse_ranks
from allranks_collector.store import Store
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence


class Growing:
    """A reader of a run whose ranks print on at each look, until it has ended."""

    def __init__(self, store: Store, build: DatabaseBuilder, more: list[str], by: Sequence[int] = (1,)) -> None:
        self._store = store
        self._build = build
        self._more = more
        self._by = cycle(by)
        run = build.run()
        self.tees = [build.writer(run, rank, role="console", host=f"node-{rank}") for rank in range(2)]

    def logs(self, reference: str, wanted: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name, value in wanted.items() if value is not None}
        asked |= {"ranks": parse_ranks(asked.get("ranks")), "attempt": parse_attempt(asked.get("attempt"))}
        with self._store.cursor() as cursor:
            found = list_logs(cursor, find_run(cursor, reference), LogRequest(**asked))
        if self._more:
            self._build.line(self.tees[next(self._by)], self._more.pop(0), second=1)
        return found

    def run(self, reference: str) -> dict[str, Any]:
        return {"id": reference, "state": "running" if self._more else "finished"}


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FOLLOW_EVERY_S", 0.0)
    monkeypatch.setattr(logs, "QUIET_S", 0.0)


def _run(monkeypatch: pytest.MonkeyPatch, reader: Growing, *arguments: str) -> int:
    def open_reader(*_: object) -> Growing:
        return reader

    monkeypatch.setattr(logs, "open_reader", open_reader)
    return cli.main(["logs", "run-1", *arguments])


def test_each_line_begins_with_its_host_and_rank(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, [])
    monkeypatch.setattr(logs, "PAGE_LINES", 2)
    for second in (3, 1, 2):
        build.line(reader.tees[second % 2], f"at {second}", second=second)
    build.open_line(reader.tees[0], "50 %", second=9)
    assert _run(monkeypatch, reader) == 0
    assert capsys.readouterr().out == "node-1:1 at 1\nnode-0:0 at 2\nnode-1:1 at 3\nnode-0:0 50 %\n"
    assert _run(monkeypatch, reader, "-n", "1", "--json") == 0
    assert [line["text"] for line in json.loads(capsys.readouterr().out)] == ["at 3", "50 %"]


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("arguments", [["-f"], ["-f", "-n", "2"]])
def test_what_comes_is_followed_once_until_the_run_has_ended(
    store: Store,
    build: DatabaseBuilder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.setattr(logs, "PAGE_LINES", 2)
    reader = Growing(store, build, ["one", "two", "three"])
    for text in ("a", "b", "c"):
        build.line(reader.tees[0], text, second=5)
    build.open_line(reader.tees[0], "the end", second=9)
    assert _run(monkeypatch, reader, *arguments) == 0
    told = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    # Those that come have an earlier time: they may lie in a page, or come later, and never both.
    assert sorted(told[:-1]) == sorted(["one", "two", "three", *("abc" if "-n" not in arguments else "bc")])
    assert told[-1] == "the end"


@pytest.mark.usefixtures("_hurried")
def test_what_is_followed_as_json_is_an_object_a_line(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, ["one\x1b]0;title\x07\x9b2J"])
    assert _run(monkeypatch, reader, "-f", "--json") == 0
    out = capsys.readouterr().out
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["one\x1b]0;title\x07\x9b2J"]
    assert out.isascii()


def test_without_a_collector_the_file_is_read_and_nothing_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    with Store.open(tmp_path / "allranks.duckdb") as store:
        build = DatabaseBuilder(store)
        run = build.run()
        for rank in range(3):
            build.line(build.writer(run, rank, role="console"), f"rank {rank}", second=rank)
    assert cli.main(["logs", "run-1", "--rank", "1-2", "--stream", "stdout"]) == 0
    assert capsys.readouterr().out == "host-a:1 rank 1\nhost-a:2 rank 2\n"
    assert cli.main(["logs", "run-1", "--rank", "7"]) == 0
    nothing = capsys.readouterr()
    assert (nothing.out, nothing.err) == ("", "allranks: no lines that fit\n")
    assert cli.main(["logs", "run-1", "--follow"]) == 1
    assert "no collector runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("nonsense", "said"),
    [
        (["--rank", "x"], "expected ranks and ranges of ranks, as in 0-3,7"),
        (["--stream", "stdin"], "expected stdout or stderr"),
        (["--attempt", "last"], "expected a number"),
        (["--grep", "(", "--json"], "expected a regular expression as RE2 takes it (missing )"),
        (["--since", "soon"], "--since 'soon' cannot be used: expected a span"),
        (["--until", "2026-13-01"], "--until '2026-13-01' cannot be used: expected a span"),
        (["--since", "1m", "--until", "2m"], "expected a time after the begin"),
        (["--around", "1204"], "--around '1204' cannot be used: expected step="),
        (["--around", "step=5"], "step=5 cannot be used: expected a step that one of these ranks has logged"),
        (["--follow", "--around", "step=5"], "--follow goes on with what comes"),
        (["--follow", "--until", "1m"], "--follow goes on with what comes"),
        (["--lines", "5001"], "--lines must be 1 to 5000"),
    ],
)
def test_nonsense_is_told_in_one_line(
    store: Store,
    build: DatabaseBuilder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nonsense: list[str],
    said: str,
) -> None:
    reader = Growing(store, build, [])
    build.line(reader.tees[0], "x")
    assert _run(monkeypatch, reader, *nonsense) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n"), said in told.err) == ("", 1, True), told.err


def test_what_the_collector_refuses_is_wrong_usage(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, [])
    for status, code in ((400, 2), (404, 1), (503, 1)):

        def refuse(*_: object, status: int = status) -> Any:
            raise Refused(status, "no, because")

        monkeypatch.setattr(reader, "logs", refuse)
        assert _run(monkeypatch, reader) == code
        assert capsys.readouterr().err == "allranks: no, because\n"


def test_lines_are_chosen_by_what_they_say_and_when(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, [])
    for second in range(60):
        build.line(reader.tees[second % 2], f"at {second}", second=second)
    build.line(reader.tees[1], "mine alone", second=30)
    build.points(build.writer(1, 0), "loss", [0.0], steps=[1204], seconds=[29.5])
    at = [datetime.fromtimestamp(T0_NS / 1e9 + second, timezone.utc).isoformat() for second in (20, 22)]

    def told(*arguments: str) -> list[str]:
        assert _run(monkeypatch, reader, *arguments) == 0
        return [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]

    assert told("-g", "at 2[0-1]$") == ["at 20", "at 21"]
    assert told("--since", at[0], "--until", at[1]) == ["at 20", "at 21"]
    assert told("--since", "10m") == []
    assert told("--odd") == ["mine alone"]
    assert told("--around", "step=1204", "-n", "4") == ["at 28", "at 29", "at 30", "mine alone"]
    assert len(told("--around", "step=1204")) == 40


def test_what_ranks_print_alike_is_one_line_with_all_of_them(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, [])
    monkeypatch.setattr(logs, "PAGE_LINES", 2)  # of which the pages know nothing
    for second in range(3):
        for tee in reader.tees:
            build.line(tee, f"epoch {second}", second=second)
    apart = [f"node-{rank}:{rank} epoch {second}" for second in range(3) for rank in range(2)]
    for arguments, lines in (
        ([], [f"×2 [0-1] epoch {second}" for second in range(3)]),
        (["--no-fold"], apart),
        (["--rank", "1"], apart[1::2]),
    ):
        assert _run(monkeypatch, reader, *arguments) == 0
        assert capsys.readouterr().out.splitlines() == lines
    for arguments, counts in ((["--json"], [None] * 6), (["--json", "--fold"], [2, 2, 2])):
        assert _run(monkeypatch, reader, *arguments) == 0
        assert [line.get("count") for line in json.loads(capsys.readouterr().out)] == counts
    assert _run(monkeypatch, reader, "--json", "--rank", "7") == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.usefixtures("_hurried")
def test_what_is_followed_is_folded_with_what_comes_by_the_next_look(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One comes in behind each look, and the first look is for the backlog.
    reader = Growing(store, build, ["a", "a", "b", "c", "b"], by=(0, 1))
    assert _run(monkeypatch, reader, "--follow") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["×2 [0-1] a", "node-0:0 b", "node-1:1 c", "node-0:0 b"]


@pytest.mark.usefixtures("_hurried")
def test_what_is_followed_is_what_was_chosen(
    store: Store, build: DatabaseBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Growing(store, build, ["bad", "good 2", "good 3"])  # all of second 1
    for second, text in ((0, "good 0"), (1, "good 1")):
        build.line(reader.tees[0], text, second=second)
    begin = datetime.fromtimestamp(T0_NS / 1e9 + 0.5, timezone.utc).isoformat()
    assert _run(monkeypatch, reader, "--follow", "--since", begin, "--grep", "good") == 0
    told = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == ["good 1", "good 2", "good 3"]


@given(span=st.integers(0, 10_000), unit=st.sampled_from("smhdw"))
def test_a_span_is_a_time_before_now(span: int, unit: str) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
    assert logs.moment("--since", f"{span}{unit}", 1e9) == 1e9 - span * seconds


@pytest.mark.parametrize("text", ["2026-11-20T10:00", "2026-11-20 10:00:00", "2026-11-20"])
def test_a_time_is_that_of_this_place(text: str) -> None:
    here = datetime(2026, 11, 20, 10 if ":" in text else 0).timestamp()
    assert logs.moment("--since", text, 0.0) == here


def test_a_time_may_say_where_it_is() -> None:
    expected = datetime(2026, 11, 20, 10, tzinfo=timezone.utc).timestamp()
    for text in ("2026-11-20T10:00Z", "2026-11-20T12:00+02:00"):
        assert logs.moment("--since", text, 0.0) == expected
    with pytest.raises(UsageError):
        logs.moment("--since", "", 0.0)


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("plain\ttext", "plain\ttext", "plain\ttext"),
        ("\x1b[1;31mred\x1b[0m", "red", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        ("\x1b[38:2::1:2:3mrgb", "rgb", "\x1b[38:2::1:2:3mrgb\x1b[0m"),
        ("a\x1b[2Jb\x1b[1;1Hc\x1b[?25ld", "abcd", "abcd"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link", "xlink", "xlink"),
        ("\x1bP1$r\x1b\\x\x1bcy\x1b(0z", "xyz", "xyz"),
        ("\x9b31mC1\x9d0;t\x9cx\x85y", "C1x·y", "C1x·y"),
        ("nul\0bel\x07del\x7fbidi\u202e", "nul·bel·del·bidi·", "nul·bel·del·bidi·"),
        ("\x1b[31", "", ""),
        ("\x1b]0;never ended", "", ""),
        ("\x1b", "", ""),
        ("\0[31mno colour", "·[31mno colour", "·[31mno colour"),
    ],
)
def test_of_escape_sequences_colours_alone_may_stay(text: str, plain: str, coloured: str) -> None:
    assert shown(text, colours=False) == plain
    assert shown(text, colours=True) == coloured


_PIECES = st.sampled_from(["\x1b", "[", "]", "31", "m", "\x9b", "\x07", "\\", "\0", "P", "2J", "x", "\r", "\x1b[32m"])


@given(text=st.lists(_PIECES, max_size=20).map("".join) | st.text(max_size=30), colours=st.booleans())
def test_nothing_but_colours_reaches_the_terminal(text: str, colours: bool) -> None:
    first, *rest = shown(text, colours=colours).split("\x1b")
    assert all(c.isprintable() or c == "\t" for c in first)
    for piece in rest:
        assert colours
        head, end, tail = piece.partition("m")
        assert head[0] == "["
        assert end == "m"
        assert set(head[1:]) <= set("0123456789;:")
        assert all(c.isprintable() or c == "\t" for c in tail)
