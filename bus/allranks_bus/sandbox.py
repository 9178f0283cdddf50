"""What a sandbox denies, asked before something that aborts the process finds out."""

from __future__ import annotations

import os


def may_schedule() -> bool:
    """Whether a thread may set its scheduling to what it is.

    libzmq does this at the start of each of its threads, and aborts the process where a seccomp filter denies it
    (zmq::thread_t::applySchedulingParameters): the training must not die of that.
    """
    try:
        os.sched_setscheduler(0, os.sched_getscheduler(0), os.sched_getparam(0))
    except PermissionError:
        return False
    except (OSError, AttributeError):
        return True
    return True
