"""Who may take the signal that asks for stacks: nobody's handler is ever replaced, and the signal never kills.

`hold` is done in the main thread by `init`, since only there may Python change what a signal does; the rest, which
needs more, is done by the publisher's thread (`_stacks`).
"""

from __future__ import annotations

import signal
import threading

from allranks_bus.stack_signal import NUMBER


def hold() -> bool:
    """Has the signal ignored, where nobody else uses it; False where it is not ours to take. Never raises."""
    try:
        if not NUMBER or threading.current_thread() is not threading.main_thread():
            return False
        if is_held():  # by an earlier run of this process, or by the process that started this one
            return True
        if signal.getsignal(NUMBER) is not signal.SIG_DFL or is_caught():
            return False
        signal.signal(NUMBER, signal.SIG_IGN)
    except (OSError, ValueError, RuntimeError, LookupError):
        return False
    return True


def is_held() -> bool:
    """True while Python has no other handler for it than ours, or none."""
    return signal.getsignal(NUMBER) is signal.SIG_IGN


def is_caught() -> bool:
    """Whether a handler is there of which Python does not know: one set by C code."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"SigCgt:"):
                return bool(int(line.split()[1], 16) >> (NUMBER - 1) & 1)
    return True
