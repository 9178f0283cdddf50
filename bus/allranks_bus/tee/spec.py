"""What a tee is told by the process that starts it, and what the two say to each other afterwards."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence

from allranks_bus.tee.limits import Limits

STDOUT, STDERR = 1, 2
STREAMS = (STDOUT, STDERR)

# The tee's descriptors, by stream: where it reads, and where what it reads went before. Below 10, which is as far as
# a shell goes with its own.
SOURCES = {STDOUT: 3, STDERR: 4}
ORIGINALS = {STDOUT: 5, STDERR: 6}
STATUS, CONTROL = 7, 8
FIRST_FREE = 9

# From the process to its tee, one byte each. At the end of its control pipe the tee is on its own.
FLUSH = b"F"  # everything that has been printed by now is to be shown and kept: answered with FLUSHED or CLOSED
DONE = b"D"  # what is kept here is stored
IN_VAIN = b"V"  # nobody is there who would store anything

# From the tee to its process.
READY = b"r"
FLUSHED = b"f"
CLOSED = b"c"  # nobody can print any more, and the spool is complete
BROKEN = {STDOUT: b"1", STDERR: b"2"}  # what is behind a stream takes no more: the process shall see that for itself
GONE = {STDOUT: b"3", STDERR: b"4"}  # nobody is there any more who would take it: everybody who prints shall see that
SHARED = b"s"  # what is behind the pipe of another rank could not be had: lines are kept for both

_LENGTH = struct.Struct("<I")
_MAX_BYTES = 32 * 1024  # fits into a pipe before anybody reads


class Spec:
    """What a tee works on.

    Args:
        root, name, cap_bytes: of its spool.
        limits: of what it keeps.
        door: the name under which other tees ask it for its originals.
        streams: those that it reads.
        modes: for each stream that is a terminal's, its `input_modes` at first.
        behind: for each stream whose original is the pipe of another tee, the door of that one.
        destination: where its spool is meant to go; a URL, `embedded:HOME` or `offline`.
        run, launch: whose spools it ships besides its own, once it is on its own.
        path: what Python needs to import to ship them.
        opening: the payload of its OPEN record, of any time.
    """

    def __init__(
        self,
        *,
        root: str,
        name: bytes,
        cap_bytes: int,
        limits: Limits,
        door: str,
        streams: Sequence[int],
        modes: Mapping[int, str],
        behind: Mapping[int, str],
        destination: str,
        run: str,
        launch: str,
        path: Sequence[str],
        opening: bytes,
    ) -> None:
        self.root = root
        self.name = name
        self.cap_bytes = cap_bytes
        self.limits = limits
        self.door = door
        self.streams = tuple(streams)
        self.modes = dict(modes)
        self.behind = dict(behind)
        self.destination = destination
        self.run = run
        self.launch = launch
        self.path = tuple(path)
        self.opening = opening

    def pack(self) -> bytes:
        """What to write into its control pipe before it is started.

        Raises:
            ValueError: it is too much for a pipe.
        """
        sizes = (self.cap_bytes, self.limits.rate, self.limits.burst, self.limits.most)
        texts = (
            *(self.root, self.name.hex(), ",".join(map(str, sizes)), self.door),
            ",".join(
                f"{stream}={self.behind.get(stream, '')}={self.modes.get(stream, '')}" for stream in self.streams
            ),
            *(self.destination, self.run, self.launch, os.pathsep.join(self.path)),
        )
        body = b"\0".join((*map(os.fsencode, texts), self.opening))
        if len(body) > _MAX_BYTES:
            raise ValueError(f"a tee is told at most {_MAX_BYTES} bytes, not {len(body)}")
        return _LENGTH.pack(len(body)) + body

    @classmethod
    def read(cls, fd: int) -> Spec:
        """What was written into the control pipe.

        Raises:
            ValueError: it is something else.
        """
        (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
        *texts, opening = _read_exactly(fd, length).split(b"\0", 9)
        root, name, sizes, door, streams, destination, run, launch, path = map(os.fsdecode, texts)
        cap_bytes, rate, burst, most = map(int, sizes.split(","))
        told = [one.split("=") for one in streams.split(",")]
        return cls(
            root=root,
            name=bytes.fromhex(name),
            cap_bytes=cap_bytes,
            limits=Limits(rate, burst, most),
            door=door,
            streams=[int(stream) for stream, _, _ in told],
            modes={int(stream): modes for stream, _, modes in told if modes},
            behind={int(stream): door for stream, door, _ in told if door},
            destination=destination,
            run=run,
            launch=launch,
            path=path.split(os.pathsep),
            opening=opening,
        )


def _read_exactly(fd: int, size: int) -> bytes:
    body = b""
    while len(body) < size:
        more = os.read(fd, size - len(body))
        if not more:
            raise ValueError("the control pipe has ended")
        body += more
    return body
