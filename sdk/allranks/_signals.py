"""Telling the program's own exceptions, raised by its signal handlers in the middle of a call of ours, from others.

A handler of SIGALRM that raises TimeoutError is how many programs bound a step; nothing of ours may swallow that.
"""

from __future__ import annotations

import functools
import signal
from types import CodeType
from typing import Any


def is_from_handler(error: BaseException) -> bool:
    """True where `error` was raised in, or through, a signal handler of this program. Never raises."""
    try:
        handlers = {
            code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None
        }
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in handlers:
                return True
            trace = trace.tb_next
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
