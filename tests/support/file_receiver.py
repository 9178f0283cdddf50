"""The collector's side of the shipping of files, in a thread and in memory, with all that can go wrong there."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from allranks_bus.addresses import Address
from allranks_bus.wire import (
    Abort,
    Ack,
    Beat,
    Chunk,
    Down,
    End,
    FileAt,
    FileRefused,
    FileStored,
    Offer,
    Up,
    pack_down,
    unpack_up,
)

_TELL_EVERY_BYTES = 2 * 1024 * 1024


@dataclass
class Arrival:
    """A transfer that is coming."""

    offer: Offer
    content: bytearray = field(default_factory=bytearray)
    told: int = -1


class FileReceiver:
    """Listens at `address` while it is a context; may be entered again, and has then what it had.

    Attributes:
        stored: (host, name) → the content that was stored last.
        offers: those of files that were stored, in order.
        heard: all that has come, but for beats.
        arrivals: what has come of transfers that are not whole.
        answer: asked with each message before anything is done with it; True means that nothing is.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.stored: dict[tuple[str, str], bytes] = {}
        self.offers: list[Offer] = []
        self.heard: list[Up] = []
        self.arrivals: dict[bytes, Arrival] = {}
        self.answer: Callable[[Up], bool] = lambda _: False
        self._digests: dict[bytes, str] = {}
        self._ending = threading.Event()
        self._is_listening = threading.Event()
        self._problem: BaseException | None = None

    def content(self, name: str) -> bytes | None:
        """What is stored under a name, of any host."""
        return next((content for (_, stored), content in self.stored.items() if stored == name), None)

    @property
    def names(self) -> set[str]:
        """The names of all that is stored."""
        return {name for _, name in self.stored}

    def chunks(self) -> list[Chunk]:
        """The chunks that have come."""
        return [message for message in self.heard if isinstance(message, Chunk)]

    def refuse(self, reason: str, *, is_final: bool) -> None:
        """From now on all that is offered is refused."""

        def answer(message: Up) -> bool:
            if isinstance(message, Offer):
                self.tell(message.sender, FileRefused(message.transfer, reason, is_final))
            return not isinstance(message, Beat)

        self.answer = answer

    def tell(self, sender: bytes, message: Down) -> None:
        """For `answer`, in the receiver's thread."""
        self._pub.send_multipart((sender, pack_down(message)))

    def __enter__(self) -> FileReceiver:
        self._ending.clear()
        self._is_listening.clear()
        self._thread = threading.Thread(target=self._run, name="file-receiver")
        self._thread.start()
        assert self._is_listening.wait(10.0)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._thread.join(10.0)
        assert self._problem is None, repr(self._problem)

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            pull, self._pub = context.socket(zmq.PULL), context.socket(zmq.PUB)
            pull.bind(self.address.data)
            self._pub.bind(self.address.control)
            self._is_listening.set()
            while not self._ending.is_set():
                if pull.poll(10):
                    message = unpack_up(pull.recv_multipart())
                    if not isinstance(message, Beat):
                        self.heard.append(message)
                    if not self.answer(message):
                        self._take(message)
        except BaseException as problem:
            self._problem = problem
        finally:
            context.destroy(0)

    def _take(self, message: Up) -> None:
        if isinstance(message, Beat):
            self.tell(message.writer, Ack(0, b"c" * 16, 0))
        elif isinstance(message, Offer):
            digest = self._digests.get(message.transfer)
            if digest is not None:
                self.tell(message.sender, FileStored(message.transfer, digest))
                return
            arrival = self.arrivals.setdefault(message.transfer, Arrival(message))
            self._tell_at(message.sender, arrival)
        elif isinstance(message, Chunk) and message.transfer in self.arrivals:
            arrival = self.arrivals[message.transfer]
            if message.offset != len(arrival.content) or zlib.crc32(message.body) != message.crc32:
                self._tell_at(message.sender, arrival)
                return
            arrival.content += message.body
            if len(arrival.content) - arrival.told >= _TELL_EVERY_BYTES:
                self._tell_at(message.sender, arrival)
        elif isinstance(message, End) and message.transfer in self.arrivals:
            arrival = self.arrivals[message.transfer]
            if len(arrival.content) != message.size:
                self._tell_at(message.sender, arrival)
                return
            self._store(message, arrival)
        elif isinstance(message, Abort):
            self.arrivals.pop(message.transfer, None)

    def _tell_at(self, sender: bytes, arrival: Arrival) -> None:
        arrival.told = len(arrival.content)
        self.tell(sender, FileAt(arrival.offer.transfer, arrival.told))

    def _store(self, end: End, arrival: Arrival) -> None:
        del self.arrivals[end.transfer]
        content, offer = bytes(arrival.content), arrival.offer
        self.stored[offer.host, offer.name] = content
        self.offers.append(offer)
        self._digests[end.transfer] = digest = hashlib.sha256(content).hexdigest()
        self.tell(end.sender, FileStored(end.transfer, digest))
