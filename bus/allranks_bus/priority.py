"""Letting the training go first, wherever there is not enough of a processor for both.

Where Linux shares the processors evenly among sessions, a priority counts within the session alone (sched(7),
autogroup): a helper in a session of its own would get as much as all ranks together. So that of the session is
lowered too.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

_NICE = 5
# Of a session, for a while.
_NICE_AT_START = 10
_START_S = 2.0
_TRIES, _TRY_AGAIN_S = 20, 0.1
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
    """Sets the priority of this session, where there is such a thing."""
    for _ in range(_TRIES):
        try:
            _OF_SESSION.write_text(str(nice))
        except (
            BlockingIOError
        ):  # without privileges, all processes of the machine together may do so ten times a second
            time.sleep(_TRY_AGAIN_S)
        except OSError:
            return
        else:
            return
