"""Stacks as they are stored, from what a rank says and from what faulthandler writes. Pure.

A thread is `{"name", "id", "main", "frames"}`; frames are `[file, line, function]`, innermost first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MAX_THREADS = 64
MAX_FRAMES = 64
MAX_TEXT = 512

_TOKEN = re.compile(r"[0-9a-f]{32}")
_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]{1,16})(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d{1,9}|\?\?\?) in (.*)')
_OURS = re.compile(r"/allranks/_(publisher|console)\.py$")


def is_token(text: str) -> bool:
    """True where `text` may be what an asking is called."""
    return _TOKEN.fullmatch(text) is not None


def checked_threads(threads: Any) -> list[dict[str, Any]]:
    """`threads` of a STACKS record, with nothing in it that is not expected, and no more than is allowed.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    if not isinstance(threads, list):
        raise TypeError("threads are a list")
    return [
        _thread(thread["name"], thread["id"], thread["main"], thread["frames"]) for thread in threads[:MAX_THREADS]
    ]


def parse_dump(text: str, main: int) -> list[dict[str, Any]]:
    """The threads of the newest of faulthandler's dumps in `text`, the main thread's first, and without our own.

    Args:
        main: what `threading` calls the main thread.
    """
    threads: list[dict[str, Any]] = []
    frames: list[list[Any]] = []
    for line in text.splitlines():
        if begins := _THREAD.fullmatch(line):
            ident = int(begins[1], 16)
            if any(thread["id"] == ident for thread in threads):  # another dump
                threads.clear()
            frames = []
            threads.append({"name": begins[2] or "", "id": ident, "main": ident == main, "frames": frames})
        elif (frame := _FRAME.fullmatch(line)) and len(frames) < MAX_FRAMES:
            number = int(frame[2]) if frame[2].isdecimal() else 0
            frames.append([frame[1][-MAX_TEXT:], number, frame[3][-MAX_TEXT:]])
    found = [thread for thread in threads if not _is_ours(thread["frames"])]
    return sorted(found, key=lambda thread: not thread["main"])[:MAX_THREADS]


def _is_ours(frames: Sequence[Sequence[Any]]) -> bool:
    """Whether a thread was started by us: it runs what our threads run."""
    return any(_OURS.search(frame[0]) and frame[2].rpartition(".")[2] in ("_run", "_watch") for frame in frames)


def _thread(name: Any, ident: Any, is_main: Any, frames: Any) -> dict[str, Any]:
    if not isinstance(frames, list) or type(ident) is not int:
        raise TypeError("a thread has a number and a list of frames")
    cleaned: list[list[Any]] = []
    for file, line, function in frames[:MAX_FRAMES]:
        if type(line) is not int or not 0 <= line < 2**31:
            raise ValueError("a line has a number")
        cleaned.append([str(file)[-MAX_TEXT:], line, str(function)[-MAX_TEXT:]])
    return {"name": str(name)[:MAX_TEXT], "id": ident, "main": is_main is True, "frames": cleaned}
