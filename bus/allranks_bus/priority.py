"""Letting the training go first, wherever there is not enough of a processor for both.

Where sessions share the processors evenly, a priority counts within the session alone (sched(7), autogroup): a helper
in a session of its own would get as much as all ranks together. So that of the session is lowered too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from pathlib import Path
from types import ModuleType

_NICE = 10
_OF_SESSION = Path("/proc/self/autogroup")


def step_back() -> None:
    """Lowers the priority of this process, for good."""
    os.nice(_NICE)
    _set_of_session(_NICE)


def import_stepping_back(name: str) -> ModuleType:
    """The module of this name, imported at a lower priority; afterwards that is as it was.

    Programs whose ranks start do so beside the import, and are not to wait for it. A thread does it, for without
    privileges none gets back what it gave up.
    """
    errors: list[BaseException] = []

    def load() -> None:
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            importlib.import_module(name)
        except BaseException as error:
            errors.append(error)

    _set_of_session(_NICE)
    try:
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    finally:
        _set_of_session(0)
    if errors:
        raise errors[0]
    return importlib.import_module(name)


def _set_of_session(nice: int) -> None:
    with contextlib.suppress(OSError):
        _OF_SESSION.write_text(str(nice))
