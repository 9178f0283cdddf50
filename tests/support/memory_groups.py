"""A control group with little memory, in which the kernel kills who wants more."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_MIB = 1024 * 1024
_GONE_S = 10.0


@contextlib.contextmanager
def memory_group(mebibytes: int) -> Generator[Sequence[str]]:
    """A command before a program's own that puts it into a group of its own, with so much memory at most."""
    is_v1 = (_MOUNT / "memory").is_dir()
    parent = _MOUNT / "memory" if is_v1 else _MOUNT
    limit, swap = (
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if is_v1 else ("memory.max", "memory.swap.max")
    )
    group = parent / f"allranks-test-{os.getpid()}"
    try:
        if not is_v1:
            (parent / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / limit).write_text(str(mebibytes * _MIB))
        with contextlib.suppress(OSError):  # there is none where no swap is counted
            (group / swap).write_text(str(mebibytes * _MIB) if is_v1 else "0")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise RuntimeError(f"this test needs a memory controller under {parent} that it may use: {error}") from None
    try:
        yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Removes it once its processes have left it."""
    deadline = time.monotonic() + _GONE_S
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
