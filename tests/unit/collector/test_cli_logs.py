"""`allranks logs`: all of it, the end of it, and what comes; and nothing in it can act on the reader's terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector import cli
from allranks_collector.cli import logs
from allranks_collector.escapes import shown
from allranks_collector.queries import LogRequest, find_run, list_logs
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder


class Growing:
    """A reader of a run whose ranks print on at each look, until it has ended."""

    def __init__(self, store: Store, build: DatabaseBuilder, more: list[str]) -> None:
        self._store = store
        self._build = build
        self._more = more
        run = build.run()
        self.tees = [build.writer(run, rank, role="console", host=f"node-{rank}") for rank in range(2)]

    def logs(self, reference: str, wanted: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name, value in wanted.items() if name not in ("ranks", "attempt")}
        with self._store.cursor() as cursor:
            found = list_logs(cursor, find_run(cursor, reference), LogRequest(**asked))
        if self._more:
            self._build.line(self.tees[1], self._more.pop(0), second=1)
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
    assert cli.main(["logs", "run-1", "--follow"]) == 1
    assert "no collector runs" in capsys.readouterr().err
    for nonsense in (["--rank", "x"], ["--stream", "stdin"], ["--attempt", "last"]):
        assert cli.main(["logs", "run-1", *nonsense]) == 2
        assert "cannot be used" in capsys.readouterr().err


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
