"""Names: of stored files, which are relative paths that stay inside their folder, and of their transfers. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import cast

import msgpack

from allranks_bus.errors import BadFileName
from allranks_bus.wire import TRANSFER_ID_BYTES

MAX_FILE_NAME_BYTES = 1024
_UNFIT = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")


def check_file_name(name: str) -> str:
    """`name`, where it is a relative POSIX path that a stored file can have (docs/protocol.md §10).

    UTF-8, at most 1,024 bytes; no part is empty, `.` or `..`; no control character and no backslash in it.

    Raises:
        BadFileName: it is not.
    """
    problem = _problem(name)
    if problem:
        raise BadFileName(name, problem)
    return name


def transfer_id(run: str, host: str, name: str, size: int, modified_ns: int, inode: int) -> bytes:
    """The name of the transfer of a file in this state: the same for every process that sends it.

    Args:
        host: empty where the file lies on a network file system, and several hosts see it.
    """
    state = cast("bytes", msgpack.packb((run, host, name, size, modified_ns, inode), unicode_errors="replace"))
    return hashlib.sha256(state).digest()[:TRANSFER_ID_BYTES]


def _problem(name: str) -> str:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if not size:
        return "it is empty"
    if size > MAX_FILE_NAME_BYTES:
        return f"it has {size:,} bytes, and {MAX_FILE_NAME_BYTES:,} is the most"
    if name.startswith("/"):
        return "it does not begin in the run's directory"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"a part of it is {part!r}"
    if _UNFIT.search(name):
        return "a backslash or a control character is in it"
    return ""
