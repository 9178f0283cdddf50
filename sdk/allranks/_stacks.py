"""Where the threads of this process stand: the answer to a collector that asks for it. Never raises.

A rank answers from the publisher's thread, by a record in its own log. While C code holds the interpreter that thread
cannot run; for then there is `faulthandler`, which needs no interpreter: at a signal it writes into a memfd, which
the collector of the same host reads (allranks_bus.stack_signal).
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from allranks._log import RankLog
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.stack_signal import NUMBER, file_name, main_of

MAX_THREADS = 64
MAX_FRAMES = 64
MAX_BYTES = 256 * 1024
_MAX_TEXT = 512
_OURS = "allranks-"
# What a frame takes beside its texts.
_FRAME_BYTES = 16


def answer(log: RankLog, token: object) -> None:
    """Appends a STACKS record to `log`, for whoever asked under this name."""
    with contextlib.suppress(Exception):  # the training must go on, whatever is odd about its threads
        told = {"token": str(token)[:64], "how": "asked", "threads": threads()}
        log.append_ours(events.pack(Kind.STACKS, time.time_ns(), told))


def threads() -> list[dict[str, Any]]:
    """The stacks of all threads but our own, the main thread's first: `name`, `id`, `main`, `frames`.

    Frames are `[file, line, function]`, innermost first; at most MAX_THREADS, MAX_FRAMES of each, MAX_BYTES in all.
    """
    # Not `threading.enumerate`: it takes a lock, and the program may be stuck while it holds it.
    names = {ident: thread.name for ident, thread in dict(getattr(threading, "_active", {})).items()}
    main = threading.main_thread().ident
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  (documented)
    found: list[dict[str, Any]] = []
    room = MAX_BYTES
    for ident in sorted(frames, key=lambda ident: ident != main):
        name = str(names.get(ident, ""))
        if name.startswith(_OURS):
            continue
        if len(found) >= MAX_THREADS or room <= 0:
            break
        stack, size = _walk(frames[ident], room)
        room -= size
        found.append({"name": name[:_MAX_TEXT], "id": ident, "main": ident == main, "frames": stack})
    return found


def _walk(frame: FrameType | None, room: int) -> tuple[list[list[Any]], int]:
    stack: list[list[Any]] = []
    size = 0
    while frame is not None and len(stack) < MAX_FRAMES and size < room:
        code = frame.f_code
        file, function = code.co_filename[-_MAX_TEXT:], getattr(code, "co_qualname", code.co_name)[-_MAX_TEXT:]
        stack.append([file, frame.f_lineno or 0, function])
        size += len(file) + len(function) + _FRAME_BYTES
        frame = frame.f_back
    return stack, size


# The process that offers it, and its memfd. A forked child inherits the handler, and makes a memfd of its own.
_offered: tuple[int, int] | None = None


def offer() -> None:
    """Sets up the handler of the signal, once in a process, unless the program has one. Never raises."""
    global _offered
    pid = os.getpid()
    with contextlib.suppress(OSError, ValueError, RuntimeError, LookupError):
        if (_offered is not None and _offered[0] == pid) or not _is_free() or not hasattr(os, "memfd_create"):
            return
        if _offered is None and _is_caught():  # by C code
            return
        fd = os.memfd_create(file_name(pid, threading.main_thread().ident or 0), os.MFD_CLOEXEC)
        # The collector empties it, and the next stacks must begin at its beginning.
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        faulthandler.register(NUMBER, file=fd, all_threads=True)
        _offered = pid, fd


def look() -> None:
    """Withdraws the offer where the program has set a handler of its own since: we must never be who calls it."""
    global _offered
    if _offered is None or _is_free():
        return
    (pid, fd), _offered = _offered, None
    with contextlib.suppress(OSError):
        # The program may have closed it with all others, and the number may be its own by now.
        if main_of(os.readlink(f"/proc/self/fd/{fd}"), pid) is not None:  # noqa: PTH115  (no pathlib in a training)
            os.close(fd)


def _is_free() -> bool:
    """True while the program has no handler for the signal, as far as Python knows."""
    return signal.getsignal(NUMBER) is signal.SIG_DFL


def _is_caught() -> bool:
    """Whether there is a handler, also one of which Python does not know: C code may set them."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"SigCgt:"):
                return bool(int(line.split()[1], 16) >> (NUMBER - 1) & 1)
    return True
