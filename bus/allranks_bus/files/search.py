"""Which files there are: all in a run's directory, and those that a pattern means.

Names are those of docs/protocol.md §10: relative to the directory, or to the folder that the pattern begins in.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from allranks_bus import home
from allranks_bus.errors import BadFileName
from allranks_bus.files.names import check_file_name
from allranks_bus.files.source import CannotSend, State, resolve, state_of


class Found(NamedTuple):
    """A file in the state in which it was found.

    Attributes:
        path: where it is opened: what a link means, and not the link.
        name: under which it is stored.
        root: the folder that it lies in, without links in its path.
        is_shared: that is on a network file system: other hosts may see the same file, and its inode means little.
    """

    path: str
    name: str
    root: str
    state: State
    is_shared: bool = False


class Unfit(NamedTuple):
    """What was found, and is not to be sent; `problem` says why, in one line."""

    path: str
    problem: str


Finding: TypeAlias = Found | Unfit


def walk(folder: str) -> Iterator[Finding]:
    """All regular files under `folder`, and links to such. Links to folders are not followed."""
    root = os.path.realpath(folder)
    folders = [(root, "")]
    while folders:
        path, prefix = folders.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:  # it is gone, or not for us
            continue
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                    continue
                finding = _look(entry.path, f"{prefix}{entry.name}", root, entry.stat(follow_symlinks=False))
                if finding is not None:
                    yield finding


def expand(pattern: str, base: str) -> Iterator[Finding]:
    """The regular files that an absolute pattern means, named relative to `base`."""
    root = os.path.realpath(base)
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207  (a Path's takes no absolute pattern)
        with contextlib.suppress(OSError):
            finding = _look(path, os.path.relpath(path, base), root, os.lstat(path))
            if finding is not None:
                yield finding


def folder_of(pattern: str) -> str:
    """The folder that a pattern begins in: all before its first wildcard."""
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return str(folder)


@cache
def _is_shared(root: str) -> bool:
    return home.is_network(Path(root))


def _look(path: str, name: str, root: str, status: os.stat_result) -> Finding | None:
    try:
        if stat.S_ISLNK(status.st_mode):
            if Path(path).is_dir():
                return None
            path = resolve(path, root)
            status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        return Found(path, check_file_name(name), root, state_of(status), _is_shared(root))
    except (BadFileName, CannotSend) as error:
        return Unfit(path, str(error))
