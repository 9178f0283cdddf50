"""Imports in the publisher's thread, which a fork waits for.

A module's import lock has an owner. A child forked while another thread imports would inherit the lock without its
owner, and wait for ever when it imports the same module itself. So whatever the publisher's thread imports late goes
through `load`, and a fork in any thread lets that finish first: some milliseconds, once in a program's life.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import threading
from collections.abc import Generator
from typing import Any

# A fork is not held up for longer than this, whatever an import does.
_FORK_WAITS_S = 2.0

_lock = threading.RLock()  # a signal handler may log while its thread imports
_held_for_fork = False


def load(name: str) -> Any:
    """The module of this name, imported if need be."""
    module = sys.modules.get(name)
    # While a module is being imported elsewhere it is there already, and not whole.
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        return module
    with _lock:
        return importlib.import_module(name)


@contextlib.contextmanager
def undisturbed() -> Generator[None]:
    """Holds garbage collection off while the training waits for our imports: what they make lives for ever.

    Behind torch and its like a full collection takes longer than all that `init` does. Only for the thread that the
    training itself is in: while another one imports, it may decide by itself when garbage is to be collected.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def before_fork() -> None:
    """In the thread that forks."""
    global _held_for_fork
    _held_for_fork = _lock.acquire(timeout=_FORK_WAITS_S)


def after_fork_in_parent() -> None:
    """In the thread that forked."""
    global _held_for_fork
    if _held_for_fork:
        _held_for_fork = False
        _lock.release()


def after_fork_in_child() -> None:
    """In the only thread that there is."""
    global _lock, _held_for_fork
    _lock = threading.RLock()
    _held_for_fork = False
