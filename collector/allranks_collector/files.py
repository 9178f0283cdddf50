"""The folder of the files that runs have sent: kept by their content, and those that are still coming.

    FILES/blobs/aa/aa03…    a file's content, named by its SHA-256; the same content is kept once
    FILES/partial/…         what has come of a transfer, named by it and by this boot of the machine

Nothing is found under `blobs` before all of it is there and durable. No name from the wire becomes a path: only
digests and the hex of transfers do. The table `files` says what the contents are called (file_rows.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from allranks_bus import processes
from allranks_bus.errors import AllranksError
from allranks_collector.partials import Partial

# What came of a transfer is kept for so long after the last piece of it, and of so many transfers at most.
KEEP_PARTIAL_S = 86_400.0
MAX_PARTIALS = 1000
# What files leave free of a disk at the least, and which part of a large one.
RESERVE_BYTES = 1024 * 1024 * 1024
RESERVE_PART = 20

_DIGEST = re.compile("[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(AllranksError):
    """The disk has no room for a file that is offered, beside what is kept free for events."""


class FileStore:
    """The folder `root`, which is made when the first file comes. For one thread, but for `blob`.

    Args:
        reserve_bytes: what files leave free of the disk, for events and for whatever else lies there; None for
            `default_reserve_bytes`.
        versions: so many contents of each file are kept (file_rows.py); 0 keeps all.
    """

    def __init__(self, root: Path, *, reserve_bytes: int | None = 0, versions: int = 0) -> None:
        self.root = root
        self.versions = versions
        self._reserve_bytes = reserve_bytes
        self._blobs, self._partial = root / "blobs", root / "partial"
        # After the machine has gone down, a file may have its length and not its content.
        self._boot = processes.boot_id()[:8]

    def blob(self, digest: str) -> Path:
        """Where the content with this digest lies, if it is there."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"no SHA-256 in hex: {digest!r}")
        return self._blobs / digest[:2] / digest

    def open(self, transfer: bytes, size: int) -> Partial:
        """What has come of a transfer, to be gone on with.

        Raises:
            NoRoom: the rest does not fit on the disk.
            OSError: the folder cannot be used.
        """
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = Partial(self._path(transfer), size)
        try:
            self.check_room(size - min(size, partial.path.stat().st_size))
        except BaseException:
            partial.close()
            raise
        return partial

    def check_room(self, wanted_bytes: int) -> None:
        """Returns where so much more fits on the disk.

        Raises:
            NoRoom: it does not.
        """
        state = os.statvfs(self.root)
        free, reserve = state.f_bavail * state.f_frsize, self._reserve_bytes
        if reserve is None:
            reserve = default_reserve_bytes(state.f_blocks * state.f_frsize)
        if wanted_bytes and free - wanted_bytes < reserve:
            raise NoRoom(
                f"no room for {_size(wanted_bytes)} more on the disk of {self.root}: {_size(free)} are free, and"
                f" files leave {_size(reserve)} free for events and trainings: make room, or set files_reserve_mb"
                " (ALLRANKS_FILES_RESERVE_MB)"
            )

    def forget(self, transfer: bytes) -> None:
        """Removes what has come of a transfer that is not open."""
        with contextlib.suppress(OSError):
            self._path(transfer).unlink(missing_ok=True)

    def has(self, digest: str) -> bool:
        """True where the content with this digest is there."""
        return self.blob(digest).is_file()

    def place(self, contents: Mapping[bytes, str]) -> set[bytes]:
        """Makes what has come of transfers, which are sealed, the contents with these digests; again is fine.

        Returns:
            Those of which nothing is there.

        Raises:
            OSError: the folder cannot be used.
        """
        missing, changed = set[bytes](), set[Path]()
        for transfer, digest in contents.items():
            blob, partial = self.blob(digest), self._path(transfer)
            if blob.is_file():
                partial.unlink(missing_ok=True)
                continue
            if not blob.parent.is_dir():
                blob.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                changed.add(self._blobs)
            try:
                partial.replace(blob)
                changed.add(blob.parent)
            except FileNotFoundError:
                missing.add(transfer)
        for folder in changed:
            _sync_folder(folder)
        return missing

    def remove(self, digest: str) -> None:
        """Removes the content with this digest: nobody refers to it any more."""
        with contextlib.suppress(OSError):
            self.blob(digest).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes what nobody will go on with: too old, of another boot, or beyond `MAX_PARTIALS` the oldest."""
        found: list[tuple[float, Path]] = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._partial):
                with contextlib.suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
        found.sort(reverse=True)
        oldest = time.time() - KEEP_PARTIAL_S
        for number, (touched, path) in enumerate(found):
            if number >= MAX_PARTIALS or touched < oldest or not path.name.endswith(f".{self._boot}"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _path(self, transfer: bytes) -> Path:
        return self._partial / f"{transfer.hex()}.{self._boot}"


def default_reserve_bytes(disk_bytes: int) -> int:
    """What files leave free of a disk of this size, where nobody has said it.

    It may be the one that a training writes its own checkpoints to, and those must never find it full of ours.
    """
    return max(RESERVE_BYTES, disk_bytes // RESERVE_PART)


def reason_of(error: OSError | NoRoom) -> str:
    """Why a file could not be kept, in one line."""
    if isinstance(error, NoRoom):
        return str(error)
    if error.errno in _FULL:
        return f"no space left for files on the collector's disk ({os.strerror(error.errno)})"
    return f"the collector cannot keep it: {error.strerror or error}"


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
