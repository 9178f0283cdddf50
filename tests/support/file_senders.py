"""A sender of files made by hand: the protocol's messages one by one, or a whole file as a good sender would."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Generator

import zmq

from allranks_bus.addresses import Address
from allranks_bus.files.names import transfer_id
from allranks_bus.wire import (
    Abort,
    End,
    FileAt,
    FileDown,
    FileRefused,
    FileStored,
    Offer,
    pack_abort,
    pack_chunk_header,
    pack_end,
    pack_offer,
    unpack_down,
)

T0_NS = 1_700_000_000_000_000_000
CHUNK_BYTES = 1024 * 1024
WINDOW_BYTES = 16 * CHUNK_BYTES
_ANSWER_S = 20.0
_AGAIN_S = 2.0


class FileSender:
    """A process that ships files: its two sockets, and who it says it is.

    Args:
        number: names it: senders of different numbers are different.
    """

    def __init__(self, address: Address, number: int = 1, *, run: str = "run-1", host: str = "h") -> None:
        self.name = b"sender".ljust(12) + number.to_bytes(4, "big")
        self.run = run
        self.host = host
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._push, self._control = self._context.socket(zmq.PUSH), self._context.socket(zmq.SUB)
        self._control.set(zmq.SUBSCRIBE, self.name)
        self._push.set(zmq.SNDTIMEO, round(1000 * _ANSWER_S))
        self._push.connect(address.data)
        self._control.connect(address.control)

    def transfer_of(self, name: str, size: int, modified_ns: int = T0_NS) -> bytes:
        return transfer_id(self.run, self.host, name, size, modified_ns, 1)

    def offer(
        self, name: str, size: int, *, modified_ns: int = T0_NS, rank: int | None = 0, transfer: bytes | None = None
    ) -> bytes:
        """Offers a file; the name of its transfer."""
        transfer = transfer or self.transfer_of(name, size, modified_ns)
        told = ("p", "l-1", self.host, name, size, modified_ns, rank)
        self.send_frames(*pack_offer(Offer(self.name, transfer, T0_NS, self.run, *told)))
        return transfer

    def chunk(self, transfer: bytes, offset: int, body: bytes, *, crc32: int | None = None) -> None:
        crc32 = zlib.crc32(body) if crc32 is None else crc32
        self.send_frames(pack_chunk_header(self.name, transfer, offset, crc32), body)

    def end(self, transfer: bytes, size: int) -> None:
        self.send_frames(*pack_end(End(self.name, transfer, size)))

    def abort(self, transfer: bytes) -> None:
        self.send_frames(*pack_abort(Abort(self.name, transfer)))

    def send_frames(self, *frames: bytes) -> None:
        self._push.send_multipart(frames)

    def hear(self, timeout_s: float = _ANSWER_S) -> FileDown:
        """The next answer; fails the test where none comes."""
        message = self.hear_maybe(timeout_s)
        assert message is not None, "the collector says nothing"
        return message

    def hear_end(self) -> FileDown:
        """What became of a file: the next answer that does not only tell how far it is."""
        while isinstance(message := self.hear(), FileAt):
            pass
        return message

    def hear_maybe(self, timeout_s: float) -> FileDown | None:
        """The next answer, if one comes in time."""
        if not self._control.poll(round(1000 * timeout_s)):
            return None
        topic, frame = self._control.recv_multipart()
        message = unpack_down(frame)
        assert topic == self.name
        assert isinstance(message, FileAt | FileStored | FileRefused)
        return message

    def open(self, name: str, size: int, *, modified_ns: int = T0_NS, timeout_s: float = _ANSWER_S) -> FileDown:
        """Offers a file until that is answered: from then on this sender hears whatever it is told."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            transfer = self.offer(name, size, modified_ns=modified_ns)
            answer: FileDown | None = None
            while (message := self.hear_maybe(0.1 if answer is None else 0.2)) is not None:
                if message.transfer == transfer:  # else it tells the end of one before
                    answer = message
            if answer is not None:
                return answer
        raise AssertionError(f"nobody answers the offer of {name}")

    def send(self, name: str, body: bytes, *, modified_ns: int = T0_NS, timeout_s: float = 60.0) -> FileDown:
        """Sends a file by the rules; what became of it: FILE_STORED or FILE_REFUSED."""
        transfer = self.transfer_of(name, len(body), modified_ns)
        deadline = time.monotonic() + timeout_s
        at = next_ = -1
        offered = 0.0
        while time.monotonic() < deadline:
            if time.monotonic() - offered >= (_AGAIN_S if at >= 0 else 0.2):
                self.offer(name, len(body), modified_ns=modified_ns)
                offered = time.monotonic()
            while 0 <= next_ < len(body) and next_ < at + WINDOW_BYTES:
                self.chunk(transfer, next_, body[next_ : next_ + CHUNK_BYTES])
                next_ += CHUNK_BYTES
                if next_ >= len(body):
                    self.end(transfer, len(body))
            answer = self.hear_maybe(0.1)
            if answer is None or answer.transfer != transfer:
                continue
            if not isinstance(answer, FileAt):
                return answer
            # Nothing new where it stood: it is asked for again.
            if answer.offset <= at or at < 0:
                next_ = answer.offset
                if next_ == len(body):
                    self.end(transfer, len(body))
            at = answer.offset
            offered = time.monotonic()
        raise AssertionError(f"{name} was not stored within {timeout_s:g} s; it stands at {at:,} of {len(body):,}")

    def close(self) -> None:
        self._context.destroy(0)


@contextlib.contextmanager
def file_sender(address: Address, number: int = 1, *, run: str = "run-1", host: str = "h") -> Generator[FileSender]:
    """A sender that is closed at the end."""
    found = FileSender(address, number, run=run, host=host)
    try:
        yield found
    finally:
        found.close()
