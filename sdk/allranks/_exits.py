"""How a process ends, told to those who ask: by the interpreter's own end, by multiprocessing's, by an exception.

No signal is taken: a program that ends by one runs nothing of this, and needs nothing of it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from allranks import _loading

# Behind the program's own finalizers (multiprocessing runs them from the highest number to the lowest).
_AFTER_ALL = -1_000_000

_Told = Callable[[type[BaseException], BaseException, "TracebackType | None"], None]
_Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]

# What the names of our own threads begin with.
_OURS = "allranks-"

_end: Callable[[], None] | None = None
_has_ended_alone = False

# The process in which the hook of multiprocessing is set: a forked child has it not.
_finalized_pid = 0


def watch(end: Callable[[], None], failed: _Told) -> None:
    """Has `end` called at the interpreter's end, and `failed` with an exception that nobody handles."""
    global _end
    _end = end
    # Not only when an exception is told: that import makes named tuples by eval(), which lets Python forget that it
    # was a Ctrl-C that nobody handled, and the program would exit with 1 in place of by SIGINT.
    _loading.load("traceback")
    atexit.register(_end_of_interpreter, end)
    sys.excepthook = _recording(sys.excepthook, failed)


def watch_child(end: Callable[[int], None], failed: _Told) -> None:
    """The same in a child of multiprocessing, which ends without the interpreter's hooks; elsewhere nothing.

    Its exit code is known there, and told to `end`.

    To be called when a log is opened: a forked child forgets what had been set before it began.
    """
    global _finalized_pid
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is None or util is None or _finalized_pid == os.getpid():
        return
    if getattr(process.current_process(), "_inheriting", False):
        # It runs the main module again, and will forget what is set before its own work begins.
        def later(_: object) -> None:
            watch_child(end, failed)

        util.register_after_fork(watch_child, later)
        return
    if process.parent_process() is None:
        return
    _finalized_pid = os.getpid()

    def finalize() -> None:
        # Called while the exception that ends the child, if any, is on its way out.
        error = sys.exc_info()[1]
        exit_code = int(error is not None)
        if isinstance(error, SystemExit):
            exit_code = code_of(error)
            # torch.multiprocessing makes one of whatever was raised.
            error = error.__context__ if exit_code else None
        if error is not None:
            failed(type(error), error, error.__traceback__)
        end(exit_code)

    util.Finalize(None, finalize, exitpriority=_AFTER_ALL)


def code_of(end: SystemExit) -> int:
    """What a process exits with that ends by this: 1 where it is a message."""
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def look_for_a_program() -> None:
    """Called now and then in a thread of ours: ends where no other thread is left.

    A child that is forked in a thread other than the main one is over when that thread returns: nothing of the
    interpreter's own end is run, and the process would go on for as long as a thread of ours does.
    """
    global _has_ended_alone
    if _has_ended_alone or _end is None:
        return
    if all(thread.name.startswith(_OURS) for thread in threading.enumerate()):
        _has_ended_alone = True
        # In a thread that is no daemon, for it waits for the one that asks.
        threading.Thread(target=_end, name=f"{_OURS}end").start()


def _end_of_interpreter(end: Callable[[], None]) -> None:
    # No context manager: a Ctrl-C may come into that one's own code, and Python would tell people of it.
    try:
        end()
        # That of a Ctrl-C which nobody handled. Set by the interpreter alone: an excepthook may be called by anybody.
        if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(sys, "ps1"):
            _tell_of_interrupt()
    except KeyboardInterrupt:  # the program's work is done, and this was the last that could be waited for
        pass


def _tell_of_interrupt() -> None:
    """Lets Python end by SIGINT, as it does after a Ctrl-C that nobody handled, and the shell that waits for it too.

    It forgets that there was one when a text is evaluated afterwards, in any thread: an import makes named tuples
    in this way. So one is evaluated that ends in the same manner.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        eval("interrupt()", {"interrupt": interrupt})


def _recording(previous: _Hook, failed: _Told) -> _Hook:
    """An excepthook that tells of the exception, then does what the one before did."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failed(kind, error, trace)
        previous(kind, error, trace)

    return hook
