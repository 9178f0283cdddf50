"""Outboxes for tests of those who use them, and of those who ship them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from tests.support.collector import clean_environment
from tests.support.waiting import wait_until

from allranks_bus.addresses import Address
from allranks_bus.files import outbox
from allranks_bus.files.outbox import About, outbox_path

_ENDS_S = 30.0


@dataclass(frozen=True)
class Box:
    """An outbox and the run's directory that it is for.

    Attributes:
        run: the run's directory.
        root: the spool root that the outbox lies under.
    """

    run: Path
    root: Path
    about: About

    @property
    def directory(self) -> Path:
        return outbox_path(self.root, self.about)

    def write(self, name: str, content: bytes | str, *, age_s: float = 10.0) -> Path:
        """A file in the run's directory, last written to so long ago."""
        path = self.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        now = path.stat().st_mtime_ns - round(age_s * 1e9)
        os.utime(path, ns=(now, now))
        return path

    def make(self) -> None:
        """Makes the outbox, as a training would that was killed then."""
        outbox.join(self.directory, self.about)
        outbox.leave(self.directory)

    @contextlib.contextmanager
    def user(self) -> Generator[int]:
        """A process that uses the outbox; its pid."""
        code = (
            "import json, sys; from pathlib import Path; from allranks_bus.files import outbox\n"
            "outbox.join(Path(sys.argv[1]), outbox.About(**json.loads(sys.argv[2])))\n"
            "print('in', flush=True); sys.stdin.read()"
        )
        about = json.dumps(self.about.__dict__)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(self.directory), about], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            try:
                yield process.pid
            finally:
                process.kill()

    @contextlib.contextmanager
    def shipper(self, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
        """A process that ships the outbox; it has ended, or is killed, afterwards."""
        with subprocess.Popen(
            [sys.executable, "-m", "allranks_bus.files.shipper", str(self.directory), *arguments],
            env=clean_environment(self.root),
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def await_gone(self, timeout_s: float = _ENDS_S) -> None:
        """Returns once the outbox is removed: all is stored."""
        wait_until(lambda: not self.directory.exists(), "the outbox is gone", timeout_s=timeout_s)


def make_box(folder: Path, address: Address | str, *, run: str = "run-1") -> Box:
    """A box under `folder` whose files are meant for `address`; the run's directory is there, the outbox not."""
    directory = folder / "runs" / run
    directory.mkdir(parents=True, exist_ok=True)
    about = About(run, "project", "launch-1", "host-1", str(directory), str(address))
    return Box(directory, folder / "spool", about)


def shippers_of(directory: Path) -> list[int]:
    """The pids of the processes that ship an outbox, or are about to."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if b"allranks_bus.files.shipper" in arguments and os.fsencode(directory) in arguments:
                    found.append(int(entry.name))
    return found


def kill_shippers_of(directory: Path) -> None:
    """Ends them all."""
    for pid in shippers_of(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
