"""Makes `protocol-v1.json`, the test vectors of docs/protocol.md, from the page alone.

    python tests/vectors/make_vectors.py > tests/vectors/protocol-v1.json

Needs nothing but msgpack: whoever writes a publisher in another language can read here how each frame is made.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zlib
from typing import Any, cast

import msgpack

TIME = 1_700_000_000_123_456_789
WRITER = bytes(range(16))
COLLECTOR = bytes(range(16, 32))
SENDER = bytes(range(32, 48))
FILE = b"weights of epoch 3"
FILE_INODE = 77

IDENTITY = {
    "run": "run-1",
    "project": "vectors",
    "launch": "launch-1",
    "rank": 3,
    "world_size": 8,
    "host": "node1",
    "pid": 4242,
    "role": "rank",
}
HISTOGRAM = {
    "_type": "histogram", "bins": [0.0, 0.5, 1.0], "counts": [2, 3],
    "min": 0.1, "max": 0.9, "mean": 0.5, "std": 0.25, "count": 5,
}  # fmt: skip

OFFER = {
    "run": "run-1",
    "project": "vectors",
    "launch": "launch-1",
    "host": "node1",
    "name": "checkpoints/last.ckpt",
    "size": len(FILE),
    "modified": TIME,
    "rank": 3,
}

# name → (kind, the fields behind the kind and the time)
PAYLOADS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "OPEN": (0, (IDENTITY,)),
    "KEYSET": (2, (0, ["loss", "accuracy"])),
    "LOG": (3, (8, {"loss": 0.25, "sample": "a text", "weights": HISTOGRAM})),
    "SYSTEM": (4, (8, {"cpu/percent": 12.5})),
    "CONFIG": (5, ({"lr": 0.1, "layers": [64, 64]},)),
    "SUMMARY": (6, ({"best": 0.125},)),
    "DEFINE": (7, ("val/*", {"step_metric": "epoch", "summary": "min"})),
    "DROPPED": (9, ({"records": 4, "reason": "No space left on device"},)),
    "CONSOLE": (10, (1, b"epoch 3\r\xff")),
    "ALERT": (11, ({"title": "diverged", "text": "loss is NaN", "level": "ERROR"},)),
    "STACKS": (
        12,
        (
            {
                "token": "5a",
                "how": "python",
                "threads": [
                    {"name": "MainThread", "id": 1, "main": True, "frames": [["train.py", 88, "step"]]},
                ],
            },
        ),
    ),
    "SECTIONS": (13, ({"from": 4, "to": 8, "seconds": 1.0, "sections": {"data": [5, 0.25, 0.125]}},)),
    "SURROUNDINGS": (14, ({"python": {"version": "3.12.1"}, "env": {"NCCL_DEBUG": "INFO"}},)),
    "ERROR_FILE": (15, (b'{"message": "ValueError: no"}',)),
    "CLOSE": (8, ({"exit_code": 0, "exception": None},)),
}


def packed(value: object) -> bytes:
    """`value` in msgpack, each number in its shortest form."""
    return cast("bytes", msgpack.packb(value))


def metrics(step: int, keyset: int, values: list[float]) -> bytes:
    """METRICS in fixed widths, as a publisher in a hurry lays it out: still plain msgpack."""
    head = struct.pack(">3sQ", b"\x95\x01\xcf", TIME) + struct.pack(">cq", b"\xd3", step)
    size = 8 * len(values)
    return head + struct.pack(">BIBH", 0xCE, keyset, 0xC5, size) + struct.pack(f">{len(values)}d", *values)


def transfer() -> bytes:
    """The name of the transfer of FILE."""
    state = [OFFER["run"], OFFER["host"], OFFER["name"], OFFER["size"], OFFER["modified"], FILE_INODE]
    return hashlib.sha256(packed(state)).digest()[:16]


def record(payload: bytes) -> bytes:
    """Length, checksum, payload."""
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def vectors() -> dict[str, Any]:
    """All of them, as JSON holds them: bytes in hex."""
    payloads: dict[str, bytes] = {}
    for name, (kind, fields) in PAYLOADS.items():
        payloads[name] = packed([kind, TIME, *fields])
        if name == "KEYSET":
            payloads["METRICS"] = metrics(7, 0, [0.5, -1.25])
    segment = b"".join(map(record, payloads.values()))
    count = len(payloads)
    batch = packed([1, 1, WRITER, 0, count, 0, TIME, 0])
    urgent = packed([1, 1, WRITER, 0, count, 0, TIME, 1])
    status = {"run": "run-1", "project": "vectors", "rank": 3, "pid": 4242, "host": "node1", "step": 8, "dropped": 4}
    down = {
        "ACK": [1, 1, count, COLLECTOR, TIME],
        "RESEND": [1, 2, 2, COLLECTOR, TIME],
        "COMMAND": [1, 3, "dump_stacks", {"all": True}],
        "REFUSED": [1, 4, "a run's id cannot be that"],
    }
    file_up = {
        "OFFER": ([1, 3, SENDER, transfer(), TIME], packed(OFFER)),
        "CHUNK": ([1, 4, SENDER, transfer(), 0, zlib.crc32(FILE)], FILE),
        "END": ([1, 5, SENDER, transfer(), len(FILE)], packed({})),
        "ABORT": ([1, 6, SENDER, transfer()], packed({})),
    }
    file_down = {
        "FILE_AT": [1, 5, transfer(), 9],
        "FILE_STORED": [1, 6, transfer(), hashlib.sha256(FILE).hexdigest()],
        "FILE_REFUSED": [1, 7, transfer(), "No space left on device", False],
    }
    return {
        "protocol": 1,
        "writer": WRITER.hex(),
        "records": {name: record(payload).hex() for name, payload in payloads.items()},
        "up": {
            "BATCH": [batch.hex(), segment.hex()],
            "BATCH urgent": [urgent.hex(), segment.hex()],
            "BEAT": [packed([1, 2, WRITER, count, 0, TIME]).hex(), packed(status).hex()],
        },
        "down": {name: [WRITER.hex(), packed(message).hex()] for name, message in down.items()},
        "file": {
            "sender": SENDER.hex(),
            "inode": FILE_INODE,
            "transfer": transfer().hex(),
            "up": {name: [packed(header).hex(), body.hex()] for name, (header, body) in file_up.items()},
            "down": {name: [SENDER.hex(), packed(message).hex()] for name, message in file_down.items()},
        },
        "segment": {"name": f"{0:020d}.seg", "records": count, "content": segment.hex()},
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=1)
    print()
