"""What is printed is played as a terminal plays it: held against pyte, an emulator, and said for what is our own."""

from __future__ import annotations

import re

import pyte
import pyte.modes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allranks_collector.cells import FARTHEST_COLUMN, MAX_LINE_BYTES, restyled
from allranks_collector.terminal import IDLE_LINES, REACH, REACH_BYTES, Final, Terminal

_COLUMNS = 200


class Played:
    """A terminal, and behind it those who keep what is final."""

    def __init__(self, *, keeps_history: bool = False) -> None:
        self.terminal = Terminal(keeps_history=keeps_history)
        self.kept: list[Final] = []
        self.taken_back = 0

    def play(self, *texts: str) -> Played:
        for text in texts:
            self.terminal.play(text, 7, self._take_back)
            self.kept += self.terminal.final
            self.terminal.final = []
            assert len(self.kept) == self.terminal.first
        return self

    def lines(self) -> list[str]:
        return [text for _, text in self.kept] + [line.text() for line in self.terminal.lines]

    def _take_back(self, line: int) -> list[Final]:
        back = self.kept[line : self.terminal.first]
        del self.kept[line:]
        self.taken_back += len(back)
        return back


def _seen(*texts: str) -> list[str]:
    return Played().play(*texts).lines()


class _Screen(pyte.HistoryScreen):
    """An emulator's screen as high as our window, so wide that nothing wraps, at whose bottom the cursor stands."""

    def __init__(self) -> None:
        super().__init__(_COLUMNS, REACH + 1, history=100_000, ratio=0.5)
        self.set_mode(pyte.modes.LNM)
        self.cursor.y = REACH

    def reverse_index(self) -> None:
        self.cursor_up()

    def erase_in_display(self, how: int = 0, *_: object, **__: object) -> None:
        if how == 0:
            super().erase_in_display(0)

    def everything(self) -> list[str]:
        above = ["".join(line[at].data for at in range(_COLUMNS)) for line in self.history.top]
        return [line.rstrip() for line in [*above, *self.display]]


_MOVES = [
    "A",
    "2A",
    "70A",
    "B",
    "3B",
    "C",
    "7C",
    "D",
    "4D",
    "E",
    "2F",
    "G",
    "6G",
    "K",
    "1K",
    "2K",
    "J",
    "0K",
    "2J",
    "?25l",
]
_PIECES = st.one_of(
    st.sampled_from(["\n", "\r", "\b", "\n\n\n", "\r\n", "\x1bM", "\x1bD", "\x1bE", "\x1b(B", "\x1b]0;title\x07"]),
    st.sampled_from([f"\x1b[{move}" for move in _MOVES]),
    st.sampled_from(["\x1b[31m", "\x1b[1;4m", "\x1b[0m", "\x1b[m", "\x1b[38;5;9m", "\x07", "\x00"]),
    st.sampled_from(["a", "bc", "words and", "50%|███▌  |", "é", "0123456789"]),
)  # fmt: skip
_PRINTED = st.lists(_PIECES, max_size=60)


@settings(max_examples=120)
@given(pieces=_PRINTED, lines=st.sampled_from([0, 3, REACH, 3 * REACH]))
def test_the_same_is_seen_as_on_an_emulator(pieces: list[str], lines: int) -> None:
    # So many lines that the cursor cannot go above what was printed.
    printed = "".join(f"line {n}\n" for n in range(REACH + lines)) + "\x1b7" + "".join(pieces)
    screen = _Screen()
    pyte.Stream(screen).feed(printed)
    seen = [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in _seen(printed)]
    assert seen == screen.everything()[-len(seen) :]
    assert not any(screen.everything()[: -len(seen)])


@settings(max_examples=100)
@given(
    pieces=st.lists(st.sampled_from(["\x1b7", "\x1b8", "\x1b[s", "\x1b[u", "\n", "ab", "\x1b[A", "\r"]), max_size=30)
)
def test_a_saved_cursor_is_restored_as_on_an_emulator(pieces: list[str]) -> None:
    printed = "line\n" * REACH + "\x1b7\x1b[s" + "".join(pieces)
    screen = _Screen()
    # The emulator keeps a stack of saved cursors, terminals keep one.
    screen.save_cursor = lambda: _save_one(screen)  # type: ignore[method-assign]
    screen.restore_cursor = lambda: _restore_one(screen)  # type: ignore[method-assign]
    stream = pyte.Stream(screen)
    stream.feed(printed.replace("\x1b[s", "\x1b7").replace("\x1b[u", "\x1b8"))
    seen = [line.rstrip() for line in _seen(printed)]
    assert seen == screen.everything()[-len(seen) :]


def _save_one(screen: _Screen) -> None:
    screen.savepoints.clear()
    pyte.Screen.save_cursor(screen)


def _restore_one(screen: _Screen) -> None:
    pyte.Screen.restore_cursor(screen)
    pyte.Screen.save_cursor(screen)


_HARD = ["漢字", "e\u0301", "\t", "👩\u200d🔬", "\x1b[", "\x1b]8;;x", "\x1b\\", "\x9b1m", "\x1b7", "\x1b8", "\x1b[3"]


@settings(max_examples=150)
@given(printed=st.lists(_PIECES | st.sampled_from(_HARD), max_size=50).map("".join), data=st.data())
def test_however_text_is_cut_the_same_is_seen(printed: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(printed)), max_size=8)))
    parts = [printed[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(printed)], strict=True)]
    assert _seen(*parts) == _seen(printed)


@settings(max_examples=100)
@given(
    printed=st.text(st.sampled_from("\x1b[]0123;mAKJPX^_\\\n\r\b\t\x07\x9b\x9c\x85\x7fab漢\u0301") | st.characters())
)
def test_nothing_but_text_tabs_and_colours_comes_out(printed: str) -> None:
    for line in _seen(printed):
        bare = re.sub("\x1b\\[[0-9;:]*m", "", line)
        assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f]", bare)


@settings(max_examples=60)
@given(pieces=_PRINTED, more=_PRINTED)
def test_a_restored_terminal_goes_on(pieces: list[str], more: list[str]) -> None:
    printed, then = "".join(["one\ntwo 漢\n", *pieces]), "".join(more)
    played = Played().play(printed)
    again = Played()
    again.terminal.restore(played.terminal.state())
    again.kept = list(played.kept)
    assert again.play(then).lines() == played.play(then).lines()


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("loading\rdone", ["doneing"]),
        ("10%\r100%\r", ["100%"]),
        ("abc\b\bX", ["aXc"]),
        ("a\tb\tc", ["a\tb\tc"]),
        ("a\tb\rX\tY", ["X\tY"]),
        ("a\tb\r123X", ["123X    b"]),
        ("漢字\rx", ["x 字"]),
        ("漢字\x1b[2Gx", [" x字"]),
        ("ab\r漢", ["漢"]),
        ("e\u0301te\r\x1b[Cx", ["e\u0301xe"]),
        ("\u0301a\rb", ["ba"]),
        ("one\ntwo\x1b[A!\n", ["one!", "two"]),
        ("one\ntwo\x1b[A\r\x1b[2KONE", ["ONE", "two"]),
        ("one\ntwo\n\x1b[2A\x1b[J", ["", "", ""]),
        ("keep\x1b[2J\x1b[H this", ["keep this"]),
        ("a\x1b[5Gb", ["a   b"]),
        ("a\x1b[99999999Gb", ["a" + " " * (FARTHEST_COLUMN - 1) + "b"]),
        ("漢字x\x1b[2D\x1b[1K", ["    x"]),
        ("ab\x1b[1Kc", ["  c"]),
        ("bar\r   ", [""]),
        ("kept blanks  \n", ["kept blanks  ", ""]),
        ("\x1b[31mred\x1b[0m", ["\x1b[31mred\x1b[0m"]),
        ("\x1b[31mred\nstill\x1b[m.", ["\x1b[31mred\x1b[0m", "\x1b[31mstill\x1b[0m."]),
        ("\x1b[1m\x1b[31mab\x1b[22mc", ["\x1b[1;31mab\x1b[0;31mc\x1b[0m"]),
        ("\x1b[32mgreen\r\x1b[31mR", ["\x1b[31mR\x1b[0;32mreen\x1b[0m"]),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", ["alinkb"]),
        ("\x1b]never ended\nnext", ["", "next"]),
        ("\x1bPq#0\x1b\\a\x1b[?1049hb\x1b[>4;1mc\x1b(Bd\x9b31me", ["abcd31me"]),
        ("\x1b[3\nm", ["", "m"]),
    ],
)  # fmt: skip
def test_what_is_printed_is_seen(printed: str, seen: list[str]) -> None:
    assert _seen(printed) == seen


@pytest.mark.parametrize(
    ("style", "given", "expected"),
    [
        ("", "31", "31"),
        ("31", "", ""),
        ("1;31", "0;4", "4"),
        ("1;2;31", "22", "31"),
        ("31", "38;2;1;2;3", "38;2;1;2;3"),
        ("38;5;9", "1;48;5;7", "1;38;5;9;48;5;7"),
        ("38;2;1;2;3", "39", ""),
        ("", "38;5", ""),
        ("31", "38;2;1;x;3", "31"),
        ("", "4:3;58:2::1:2:3", "4:3;58:2::1:2:3"),
        ("4:3", "4:0", ""),
        ("", "999;10", ""),
        ("", "01;032", "1;32"),
    ],
)
def test_colours_follow_each_other(style: str, given: str, expected: str) -> None:
    assert restyled(style, given) == expected
    assert restyled("", expected) == expected


def test_the_cursor_goes_up_as_far_as_it_can_reach() -> None:
    lines = Played().play("x\n" * (REACH + 5) + "\x1b[999A" + "top").lines()
    assert lines.index("top") == 5


def test_a_stream_that_never_goes_up_keeps_nothing_back() -> None:
    played = Played().play("one\ntwo\nthree\n")
    assert (len(played.kept), len(played.terminal.lines)) == (3, 1)


def test_lines_of_a_bar_are_taken_back_once() -> None:
    played = Played().play("a\nb\n")
    for n in range(50):
        played.play(f"\x1b[A\rb{n}\n")
    assert played.taken_back == 1
    assert played.lines() == ["a", "b49", ""]


def test_lines_are_final_at_once_again_when_the_cursor_has_not_gone_up_for_long() -> None:
    played = Played().play("a\nb\n\x1b[2A", "\n" * (IDLE_LINES + 5))
    assert len(played.terminal.lines) == 1


def test_of_very_long_lines_fewer_are_in_reach() -> None:
    long = "x" * (REACH_BYTES // 8)
    played = Played().play("\x1b[A", *[f"{long}\n"] * 40)
    played.play("\x1b[40A")
    assert 4 <= len(played.terminal.lines) <= 10
    assert len(played.lines()) == 41


def test_a_line_that_is_too_long_is_cut_though_it_is_printed_over() -> None:
    (line,) = _seen("a" * (MAX_LINE_BYTES + 10), "\rb", "c" * 5, "\x1b[1m")
    assert line == "bccccc" + "a" * (MAX_LINE_BYTES - 6) + " … [10 bytes more]"


def test_colours_that_would_make_too_much_of_a_line_are_left_out() -> None:
    style = "\x1b[1;3;4;7;9;38;2;255;255;255;48;2;255;255;255m"
    (line,) = _seen(f"{style}a\x1b[27mb" * 10_000)
    assert len(line) <= 4 * MAX_LINE_BYTES
    assert line == "ab" * 10_000


def test_with_history_each_state_is_a_line() -> None:
    played = Played(keeps_history=True).play("\r10%\r20%\n\rinner\x1b[A\r30%\x1b[2K\rend\r\n")
    assert played.lines() == ["10%", "20%", "inner", "30%", "end", ""]


def test_at_the_end_all_is_final_but_empty_lines_that_nobody_ended() -> None:
    played = Played().play("one\n\nbar\n\n\n\x1b[2A")
    played.terminal.end()
    assert [text for _, text in played.kept + played.terminal.final] == ["one", "", "bar"]
