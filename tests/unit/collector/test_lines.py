"""Lines are the same however the bytes that make them arrive, and whichever way they take."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allranks_collector.cells import MAX_LINE_BYTES
from allranks_collector.lines import LineStream
from allranks_collector.terminal import Final, Terminal


class Fed:
    """A stream, and behind it those who keep what is final."""

    def __init__(self, *chunks: bytes, keeps_history: bool = False) -> None:
        self.stream = LineStream(keeps_history=keeps_history)
        self.kept: list[Final] = []
        self.feed(*chunks)

    def feed(self, *chunks: bytes, time_ns: int = 7) -> Fed:
        for chunk in chunks:
            for first, when, count, text in self.stream.feed(chunk, time_ns, self._take_back):
                texts = text.split("\n")
                assert (first, count) == (len(self.kept), len(texts))
                self.kept += [(when, text) for text in texts]
        return self

    @property
    def final(self) -> list[str]:
        return [text for _, text in self.kept]

    @property
    def open(self) -> list[str]:
        lines = self.stream.open_lines()
        assert [line for line, *_ in lines] == list(range(len(self.kept), len(self.kept) + len(lines)))
        assert not lines or lines[-1][2]
        return [text for _, _, text in lines]

    def _take_back(self, line: int) -> list[Final]:
        back = self.kept[line:]
        del self.kept[line:]
        return back


_PIECES = st.sampled_from(
    [b"a", b"\n", b"\r", b"\r\n", "é".encode(), "€".encode(), b"\xff", b"\xf0\x9f", b"words and words", b"12%\r13%"]
) | st.sampled_from(
    [b"  ", "█▌".encode(), b"\t", b"\x1b[31m", b"\x1b[0m", b"\x1b[A", b"\x1b[K", b"\b", "漢".encode(), b"\xc2\x85"]
)
_COLOURED = st.sampled_from(["31", "1", "1;34", "0;31", "38;5;9", "01;32", "7"]).map(
    lambda style: f"\x1b[{style}mred\x1b[0m".encode()
)
_PRINTED = st.lists(_PIECES | _COLOURED | st.just(b" and\n"), max_size=40).map(b"".join)


@pytest.mark.parametrize(
    ("printed", "final", "open_"),
    [
        (b"one\ntwo\n", ["one", "two"], ""),
        (b"\n\n", ["", ""], ""),
        (b"no end", [], "no end"),
        (b"dos\r\nline\r\n", ["dos", "line"], ""),
        (b"10%\r20%\r30%\n", ["30%"], ""),
        (b"\r10%\r20%\r", [], "20%"),
        (b"100%\r99\r\nnext", ["990%"], "next"),
        (b"\r\n\r", [""], ""),
        (b"tab\there  \n", ["tab\there  "], ""),
        (b"\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"], ""),
        ("grüße\n€".encode(), ["grüße"], "€"),
        (b"bad \xff\xfe byte\n\xc3\nok\n", ["bad \ufffd\ufffd byte", "\ufffd", "ok"], ""),
        (b"nul \x00 here\n", ["nul  here"], ""),
        (b"a\xc2\x9b1mb\n", ["a1mb"], ""),
    ],
)  # fmt: skip
def test_what_was_printed_becomes_lines(printed: bytes, final: list[str], open_: str) -> None:
    fed = Fed(printed)
    assert (fed.final, fed.open) == (final, [open_] if open_ else [])


def test_half_a_character_is_waited_for() -> None:
    fed = Fed(b"caf\xc3")
    assert fed.open == ["caf"]
    assert fed.feed(b"\xa9\n").final == ["café"]


def test_lines_have_the_time_of_the_chunk_that_ended_them_and_open_ones_that_of_their_last_change() -> None:
    fed = Fed().feed(b"one\ntwo", time_ns=1).feed(b"\nthree\n", time_ns=2).feed(b"\x1b[A!", time_ns=3)
    assert fed.kept == [(1, "one"), (2, "two")]
    assert fed.stream.open_lines() == [(2, 3, "!hree")]


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    fed = Fed(b"a" * (MAX_LINE_BYTES + 1500) + b"\nnext\n")
    assert fed.final == ["a" * MAX_LINE_BYTES + " … [1,500 bytes more]", "next"]


def test_a_cut_character_is_left_out_of_a_long_line() -> None:
    fed = Fed(b"a" * (MAX_LINE_BYTES - 1) + "éb".encode() + b"\n")
    assert fed.final == ["a" * (MAX_LINE_BYTES - 1) + " … [3 bytes more]"]


def test_a_line_of_a_megabyte_takes_no_more_memory_than_what_is_kept_of_it() -> None:
    fed = Fed(*[b"x" * 4096] * 256)
    assert len(fed.stream.state()) < 2 * MAX_LINE_BYTES
    assert fed.feed(b"\n").final == ["x" * MAX_LINE_BYTES + f" … [{(1 << 20) - MAX_LINE_BYTES:,} bytes more]"]


def test_a_progress_bar_that_never_ends_takes_no_more_memory_than_its_last_state() -> None:
    fed = Fed(*(b"\r%3d%% of it" % n for n in range(10_000)))
    assert fed.open == ["9999% of it"]
    assert len(fed.stream.state()) < 100


def test_with_history_each_state_of_a_bar_is_a_line() -> None:
    fed = Fed(b"\r10%\r20%", b"\r30%\nend\n", keeps_history=True)
    assert fed.final == ["10%", "20%", "30%", "end"]


def test_the_cursor_may_go_up_right_behind_lines_in_colours() -> None:
    red = b"\x1b[31mred\x1b[0m\n"
    assert Fed(red * 3 + b"\x1b[2A\rX").open == ["X\x1b[31med\x1b[0m", "\x1b[31mred\x1b[0m"]


@settings(max_examples=150)
@given(
    pieces=st.lists(_COLOURED | st.sampled_from([b"text ", b"\n", b"\t", b"\x1b[0m", "é\n".encode()]), max_size=20)
)
def test_lines_in_colours_come_to_the_same_at_once_and_one_by_one(pieces: list[bytes]) -> None:
    printed = b"".join(pieces)
    assert Fed(printed).final == Fed(*(printed[at : at + 1] for at in range(len(printed)))).final


def test_where_something_is_missing_a_line_ends() -> None:
    fed = Fed(b"\x1b[31mhalf a l\xc3")
    blocks = fed.stream.interrupt()
    assert [block.text for block in blocks] == ["\x1b[31mhalf a l\ufffd\x1b[0m"]
    assert fed.stream.interrupt() == []
    assert fed.stream.open_lines() == []


def test_at_the_end_the_open_line_is_final_too() -> None:
    fed = Fed(b"one\nno end\xc3")
    assert [(block.first, block.text) for block in fed.stream.end()] == [(1, "no end\ufffd")]
    assert Fed(b"one\n").stream.end() == []


@settings(max_examples=200)
@given(printed=_PRINTED, data=st.data())
def test_however_the_bytes_are_cut_the_lines_are_the_same(printed: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(printed)), max_size=12)))
    chunks = [printed[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(printed)], strict=True)]
    cut, whole = Fed(*chunks), Fed(printed)
    assert cut.final + cut.open == whole.final + whole.open


@settings(max_examples=200)
@given(chunks=st.lists(_PRINTED, max_size=4))
def test_the_short_ways_come_to_what_a_terminal_shows(chunks: list[bytes]) -> None:
    fed, terminal = Fed(*chunks), Terminal()
    text, _ = codecs.utf_8_decode(b"".join(chunks).replace(b"\r\n", b"\n"), "replace", False)
    for character in text:
        terminal.play(character, 7, lambda line: [terminal.final.pop() for _ in terminal.final[line:]][::-1])
    shown = [text for _, text in terminal.final] + [line.text() for line in terminal.lines]
    while shown[len(fed.final) :] and not shown[-1]:
        shown.pop()
    assert fed.final + fed.open == shown


@settings(max_examples=50)
@given(
    before=st.integers(MAX_LINE_BYTES - 3, MAX_LINE_BYTES + 2),
    tail=st.lists(st.sampled_from([b"a", "é".encode(), b"\r", b"\x1b[1m", b"\n", "e\u0301".encode()]), max_size=8),
    at=st.integers(0, MAX_LINE_BYTES + 10),
)
def test_long_lines_too_are_the_same_however_they_are_cut(before: int, tail: list[bytes], at: int) -> None:
    printed = b"x" * before + b"".join(tail)
    cut, whole = Fed(printed[:at], printed[at:]), Fed(printed)
    assert cut.final + cut.open == whole.final + whole.open


@settings(max_examples=60)
@given(before=_PRINTED, then=_PRINTED)
def test_a_restored_stream_goes_on(before: bytes, then: bytes) -> None:
    fed, again = Fed(before), Fed()
    again.stream, again.kept = LineStream.restored(fed.stream.state(), []), list(fed.kept)
    fed.feed(then)
    again.feed(then)
    assert (again.final, again.open) == (fed.final, fed.open)
