"""A disk that is too small, as this machine can make one: real ones where it may mount, a limit on files anywhere."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MIB = 1024 * 1024
_MOUNT_POINT = Path("/mnt")
_BALLAST = "ballast"


@dataclass(frozen=True)
class SmallDisk:
    """How a program gets a full disk, and room on it later.

    Attributes:
        wrapper: a command before the program's own.
        spool: where on that disk a spool may lie; None: wherever it lies.
    """

    wrapper: Sequence[str] = ()
    spool: Path | None = None

    def fill(self, pid: int) -> None:
        """Leaves no room: what is written from now on fails sooner or later."""
        if self.spool is None:
            _limit_files(pid, 1 * MIB)

    def make_room(self, pid: int) -> None:
        """Gives room again."""
        if self.spool is None:
            _limit_files(pid, resource.RLIM_INFINITY)
        else:
            # A process's own mounts are reached through its root (proc(5)).
            Path(f"/proc/{pid}/root{_MOUNT_POINT}/{_BALLAST}").unlink()


def kinds() -> list[str]:
    """The kinds of small disk that this machine can make."""
    return ["limit", "disk"] if _may_mount() else ["limit"]


def small_disk(kind: str) -> SmallDisk:
    """`limit`: no file may grow (EFBIG). `disk`: 96 MiB in all, 92 of them taken (ENOSPC)."""
    if kind == "limit":
        return SmallDisk()
    script = (
        f"mount -t tmpfs -o size=96m,mode=0777 none {_MOUNT_POINT} && head -c {92 * MIB} /dev/zero"
        f' > {_MOUNT_POINT}/{_BALLAST} && exec "$@"'
    )
    return SmallDisk((*_unshare(), "sh", "-c", script, "sh"), _MOUNT_POINT / "spool")


def read_only_disk() -> tuple[Sequence[str], Path]:
    """A command before a program's own, and a folder on a disk that takes no writes."""
    script = f'mount -t tmpfs -o ro none {_MOUNT_POINT} && exec "$@"'
    return (*_unshare(), "sh", "-c", script, "sh"), _MOUNT_POINT / "spool"


def _unshare() -> Sequence[str]:
    # A user namespace of its own lets anybody mount; root may do without, where such namespaces are forbidden.
    return ("unshare", "-m") if os.getuid() == 0 and not _works("-Urm") else ("unshare", "-Urm")


@cache
def _works(flags: str) -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = f"mount -t tmpfs none {_MOUNT_POINT}"
    done = subprocess.run(["unshare", flags, "sh", "-c", mount], capture_output=True, timeout=10, check=False)
    return done.returncode == 0


def _may_mount() -> bool:
    return _works("-Urm") or (os.getuid() == 0 and _works("-m"))


def _limit_files(pid: int, most: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
