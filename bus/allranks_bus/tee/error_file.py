"""The error file of torchelastic: what `@record` has written of a rank's exception, read once the rank is gone.

torchrun names one for each of its workers. The tee reads it because it lives on the rank's host, has the rank's
rights, and outlives it; a collector may be elsewhere, and opens no file that a peer names.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

VARIABLE = "TORCHELASTIC_ERROR_FILE"
MAX_BYTES = 60_000


def read_error_file(env: Mapping[str, str]) -> bytes:
    """Its content; empty where there is none, or something else than a regular file of at most MAX_BYTES."""
    path = env.get(VARIABLE)
    if not path:
        return b""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                content = os.read(fd, MAX_BYTES + 1)
                return content if len(content) <= MAX_BYTES else b""
        finally:
            os.close(fd)
    return b""
