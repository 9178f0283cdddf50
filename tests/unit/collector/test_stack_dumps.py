"""Stacks as they are stored: what ranks say is not trusted, and faulthandler's dumps are read rightly."""

from __future__ import annotations

import faulthandler
import tempfile
import threading
from typing import Any

import pytest

from allranks_collector.stack_dumps import MAX_FRAMES, MAX_THREADS, checked_threads, is_token, parse_dump

_DUMP = """Thread 0x00007f01 [pin memory] (most recent call first):
  File "/x/pin memory.py", line 12 in loop

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.12/re/__init__.py", line 167 in match
  File "/home/me/train.py", line ??? in hold
  ...

Thread 0x00007f03 (most recent call first):
  File "/v/allranks_bus/polling.py", line 9 in wait_readable
  File "/v/allranks/_publisher.py", line 250 in _ship
  File "/v/allranks/_publisher.py", line 140 in _run
  File "/usr/lib/python3.12/threading.py", line 1012 in run

Thread 0x00007f04 (most recent call first):
  <no Python frame>
"""


def test_a_dump_is_read_without_our_own_threads_and_the_main_thread_comes_first() -> None:
    main, pin, empty = parse_dump(_DUMP, 0x7F02)
    assert (main["main"], main["frames"]) == (
        True,
        [["/usr/lib/python3.12/re/__init__.py", 167, "match"], ["/home/me/train.py", 0, "hold"]],
    )
    assert (pin["name"], pin["main"], pin["frames"]) == ("pin memory", False, [["/x/pin memory.py", 12, "loop"]])
    assert empty["frames"] == []


def test_of_two_dumps_the_newest_counts() -> None:
    later = _DUMP.replace("line 167", "line 168")
    assert parse_dump(_DUMP + later, 0x7F02) == parse_dump(later, 0x7F02)


@pytest.mark.parametrize(
    "text", ["", "nothing\n", '  File "x", line 3 in y\n', "Thread 0xzz (most recent call first):\n"]
)
def test_what_is_no_dump_has_no_threads(text: str) -> None:
    assert parse_dump(text, 1) == []


def test_a_dump_of_this_very_python_is_read() -> None:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        main = parse_dump(file.read(), threading.main_thread().ident or 0)[0]
    assert main["main"]
    assert main["frames"][0][2] == "test_a_dump_of_this_very_python_is_read"


def _thread(**more: Any) -> dict[str, Any]:
    return {"name": "t", "id": 1, "main": False, "frames": [["f", 1, "g"]], **more}


def test_what_a_rank_says_is_cut_to_what_is_allowed() -> None:
    many = checked_threads([_thread(frames=[["f" * 2000, 1, "g"]] * 200, name="n" * 2000, more=1)] * 200)
    assert len(many) == MAX_THREADS
    assert set(many[0]) == {"name", "id", "main", "frames"}
    assert len(many[0]["frames"]) == MAX_FRAMES
    assert max(len(many[0]["name"]), len(many[0]["frames"][0][0])) == 512


@pytest.mark.parametrize(
    "threads",
    [
        None,
        {},
        [1],
        [{}],
        [_thread(id="1")],
        [_thread(frames=None)],
        [_thread(frames=[["f", -1, "g"]])],
        [_thread(frames=[["f", 1]])],
        [_thread(frames=[["f", "1", "g"]])],
    ],
)
def test_what_are_no_threads_is_refused(threads: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        checked_threads(threads)


@pytest.mark.parametrize(
    ("text", "fits"), [("0" * 32, True), ("0" * 31, False), ("G" * 32, False), ("0" * 32 + "\n", False)]
)
def test_a_token_is_32_hex_digits(text: str, fits: bool) -> None:
    assert is_token(text) is fits
