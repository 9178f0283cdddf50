"""Lines are the same however the bytes that make them arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.lines import MAX_LINE_BYTES, OpenLine


def _fed(*chunks: bytes) -> tuple[list[str], OpenLine]:
    """The lines that have ended, and the one that has not."""
    stream = OpenLine()
    ended: list[str] = []
    for chunk in chunks:
        before = stream.line
        count, text = stream.feed(chunk, 7)
        lines = text.split("\n") if count else []
        assert len(lines) == count == stream.line - before
        ended += lines
    return ended, stream


@pytest.mark.parametrize(
    ("printed", "ended", "open_"),
    [
        (b"one\ntwo\n", ["one", "two"], ""),
        (b"\n\n", ["", ""], ""),
        (b"no end", [], "no end"),
        (b"dos\r\nline\r\n", ["dos", "line"], ""),
        (b"10%\r20%\r30%\n", ["30%"], ""),
        (b"\r10%\r20%\r", [], "20%"),
        (b"100%\r\r\nnext", ["100%"], "next"),
        (b"\r\n\r", [""], ""),
        (b"\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"], ""),
        ("grüße\n€".encode(), ["grüße"], "€"),
        (b"bad \xff\xfe byte\n\xc3\nok\n", ["bad �� byte", "�", "ok"], ""),
        (b"nul \x00 here\n", ["nul \x00 here"], ""),
    ],
)  # fmt: skip
def test_what_was_printed_becomes_lines(printed: bytes, ended: list[str], open_: str) -> None:
    lines, stream = _fed(printed)
    assert (lines, stream.text) == (ended, open_)


def test_half_a_character_is_waited_for() -> None:
    lines, stream = _fed(b"caf\xc3")
    assert (lines, stream.text) == ([], "caf")
    assert stream.feed(b"\xa9\n", 9) == (1, "café")


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    lines, _ = _fed(b"a" * (MAX_LINE_BYTES + 1500) + b"\nnext\n")
    assert lines == ["a" * MAX_LINE_BYTES + " … [1,500 bytes more]", "next"]


def test_a_cut_character_is_left_out_of_a_long_line() -> None:
    lines, _ = _fed(b"a" * (MAX_LINE_BYTES - 1) + "é".encode() + b"\n")
    assert lines == ["a" * (MAX_LINE_BYTES - 1) + " … [1 bytes more]"]


def test_a_carriage_return_makes_room_again() -> None:
    lines, stream = _fed(b"a" * (MAX_LINE_BYTES + 5), b"\rshort")
    assert (lines, stream.text, stream.cut) == ([], "short", 0)


def test_a_progress_bar_that_never_ends_takes_no_more_memory_than_its_last_state() -> None:
    _, stream = _fed(*(b"\r%3d%% of it" % n for n in range(10_000)))
    assert stream.raw == b"9999% of it"


_PRINTED = st.lists(
    st.sampled_from(
        [b"a", b"\n", b"\r", b"\r\n", "é".encode(), "€".encode(), b"\xff", b"\xf0\x9f", b"words and words"]
    )
    | st.integers(MAX_LINE_BYTES - 2, MAX_LINE_BYTES + 2).map(lambda size: b"x" * size),
    max_size=25,
).map(b"".join)


@given(printed=_PRINTED, data=st.data())
def test_however_the_bytes_are_cut_the_lines_are_the_same(printed: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(printed)), max_size=12)))
    chunks = [printed[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(printed)], strict=True)]
    assert _fed(*chunks) == _fed(printed)
