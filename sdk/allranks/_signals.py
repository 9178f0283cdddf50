"""Telling the program's own exceptions, raised by its signal handlers in the middle of a call of ours, from others.

A handler of SIGALRM that raises TimeoutError is how many programs bound a step; nothing of ours may swallow that.
"""

from __future__ import annotations

import functools
import os
import signal
from types import CodeType
from typing import Any

# Where our own code lies: no handler of a program does.
_HERE = os.path.dirname(__file__)  # noqa: PTH120  (compared with the text in code objects)


def is_from_handler(error: BaseException) -> bool:
    """True where `error` was raised in, or through, a signal handler of this program. Never raises."""
    try:
        foreign: set[CodeType] = set()
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename.rpartition("/")[0] != _HERE:
                foreign.add(code)
            trace = trace.tb_next
        # Mostly there is none: a value that is odd, and not worth the 50 µs that it takes to ask for all handlers.
        return bool(foreign) and any(
            _code_of(signal.getsignal(number)) in foreign for number in signal.valid_signals()
        )
    except Exception:
        pass  # whatever is odd about a handler, it cannot be told from any other code
    return False


def _code_of(handler: Any) -> CodeType | None:
    """The code that runs when `handler` is called; None for defaults, and for handlers written in C."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = type(handler).__dict__.get("__call__")  # an object that is called itself
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    return code if isinstance(code, CodeType) else None
