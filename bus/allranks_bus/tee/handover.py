"""Handover: a tee gives the descriptors behind its pipe to the tee of a rank that prints into that pipe.

A process that a captured rank starts inherits the rank's pipe. Where it is a rank itself, its lines must be kept
under its own rank alone, and shown once: so its tee writes to what is behind the pipe, and not into it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Mapping

# struct ucred: pid, uid, gid (unix(7)).
_CREDENTIALS = struct.Struct("=iii")
_POLL_S = 0.01
_ANSWER_S = 1.0


def listen(door: str) -> socket.socket | None:
    """A socket of this name in Linux's abstract namespace, which leaves no file behind; None where it is not to be
    had.
    """
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        listener.bind(_address(door))
        listener.listen(64)
    except OSError:
        listener.close()
        return None
    return listener


def give(listener: socket.socket, originals: Mapping[int, int]) -> None:
    """Answers one who asks: the streams there are, and their descriptors. Another user's process gets nothing."""
    try:
        peer, _ = listener.accept()
    except OSError:
        return
    with peer:
        peer.settimeout(_ANSWER_S)
        try:
            if _user_of(peer) == os.getuid():
                socket.send_fds(peer, [bytes(originals)], list(originals.values()))
        except OSError:
            pass  # it has gone, or is in no state to listen


def ask(door: str, patience_s: float) -> dict[int, int]:
    """The descriptors behind the pipe of the tee that listens at `door`, by stream; none where nobody answers.

    It may be starting still, so it is asked for up to `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_ANSWER_S)
            asking.connect(_address(door))
            # Whoever else has taken this name must get no bytes of ours written to its descriptors.
            if _user_of(asking) != os.getuid():
                return {}
            streams, descriptors, _, _ = socket.recv_fds(asking, 16, 16)
            if streams and len(streams) == len(descriptors):
                return dict(zip(streams, descriptors, strict=True))
        if time.monotonic() >= deadline:
            return {}
        time.sleep(_POLL_S)


def _address(door: str) -> str:
    return f"\0allranks-tee-{door}"


def _user_of(peer: socket.socket) -> int:
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    return int(uid)
