"""Looking at spools: which are in use, which wait, and that looking disturbs nobody."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from allranks_collector.spools import look_at_spools, orphans

if TYPE_CHECKING:
    from pathlib import Path


def spool(root: Path, number: int, records: bytes = b"x" * 10) -> Path:
    directory = root / f"{number:032x}"
    directory.mkdir(parents=True)
    (directory / "lock").touch()
    (directory / f"{0:020}.seg").write_bytes(records)
    return directory


def test_a_spool_without_a_writer_waits(tmp_path: Path) -> None:
    directory = spool(tmp_path, 1)
    (state,) = look_at_spools([tmp_path])
    assert (state.directory, state.bytes, state.in_use) == (directory, 10, False)
    assert orphans([state]) == [state]


def test_a_spool_whose_writer_lives_does_not(tmp_path: Path) -> None:
    directory = spool(tmp_path, 1)
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX);"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (state,) = look_at_spools([tmp_path])
        holder.communicate()
    assert state.in_use
    assert orphans([state]) == []
    assert not look_at_spools([tmp_path])[0].in_use


def test_looking_takes_no_lock(tmp_path: Path) -> None:
    directory = spool(tmp_path, 1)
    code = (
        "import sys, pathlib; from allranks_collector.spools import look_at_spools;"
        "look_at_spools([pathlib.Path(sys.argv[1])]); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        fd = os.open(directory / "lock", os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        looker.communicate()


def test_an_empty_spool_is_no_orphan(tmp_path: Path) -> None:
    spool(tmp_path, 1, records=b"")
    assert orphans(look_at_spools([tmp_path])) == []


def test_roots_that_are_the_same_or_not_there_are_no_trouble(tmp_path: Path) -> None:
    spool(tmp_path, 1)
    (tmp_path / "not-a-spool").mkdir()
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert len(look_at_spools([tmp_path, link, tmp_path / "none"])) == 1
