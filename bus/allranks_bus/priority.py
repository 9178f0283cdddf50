"""Letting the training go first, wherever there is not enough of a processor for both.

Where Linux shares the processors evenly among sessions, a priority counts within the session alone (sched(7),
autogroup): a helper in a session of its own would get as much as all ranks together. So that of the session is
lowered too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator
from pathlib import Path

_NICE = 5
# Of a session, for a while.
_NICE_AT_START = 10
_START_S = 2.0
_OF_SESSION = Path("/proc/self/autogroup")


def step_back() -> None:
    """Lowers the priority of this process, for good."""
    os.nice(_NICE)
    _set_of_session(_NICE)


@contextlib.contextmanager
def stepping_back() -> Generator[None]:
    """Lowers the priority of this session while the process starts, but for no longer than two seconds.

    Ranks may be starting beside it, and are not to wait for it; but on a machine that always has more to do than it
    can, it must come to its start too.
    """
    _set_of_session(_NICE_AT_START)
    end = threading.Timer(_START_S, _set_of_session, (0,))
    end.daemon = True
    end.start()
    try:
        yield
    finally:
        end.cancel()
        _set_of_session(0)


def _set_of_session(nice: int) -> None:
    with contextlib.suppress(OSError):  # there is no such thing; or another process has just done it, and so may soon
        _OF_SESSION.write_text(str(nice))
