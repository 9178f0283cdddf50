"""Starting the shipper of an outbox: by exec, detached, and seldom, however many ask for it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from allranks_bus.files.outbox import LOG, START, is_locked
from allranks_bus.helpers import start_helper
from allranks_bus.spool_directory import LOCK

# One that has been started may not hold its lock yet, and one that ends at once would do so again: after two in a row
# twice as long, and so on.
START_AGAIN_S, _START_AGAIN_AT_MOST_S = 2.0, 64.0
_START_S = 10.0


def ensure_shipper(directory: Path, env: Mapping[str, str]) -> bool:
    """Makes sure that a process ships the outbox; waits for no more than its start. True where this one started it.

    Raises:
        OSError, subprocess.SubprocessError: it could not be started.
    """
    if is_locked(directory / LOCK):
        return False
    fd = os.open(directory / START, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Of eight ranks that ask at once, one starts it.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        if status.st_size and 0 <= time.time() - status.st_mtime < _pause_s(status.st_size):
            return False
        os.write(fd, b"x")
        start_helper(
            "allranks_bus.files.shipper",
            [str(directory)],
            cwd=directory,
            env=env,
            log=directory / LOG,
            timeout_s=_START_S,
        )
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    finally:
        os.close(fd)
    return True


def note_that_it_works(directory: Path) -> None:
    """Called by a shipper that has got somewhere: should it be killed, the next one may follow soon."""
    with contextlib.suppress(OSError):
        os.truncate(directory / START, 1)


def _pause_s(starts: int) -> float:
    return min(START_AGAIN_S * 2.0 ** min(starts - 1, 10), _START_AGAIN_AT_MOST_S)
