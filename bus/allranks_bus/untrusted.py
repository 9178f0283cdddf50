"""Untrusted bytes: msgpack from peers, with a bound on its depth, and short words about what came instead.

Sizes are bounded by whoever receives the bytes. msgpack itself goes 1,024 levels deep, further than Python's own
recursion: `repr`, `json.dumps` and the like would fail on such a value wherever it is touched next.
"""

from __future__ import annotations

from typing import Any

import msgpack

from allranks_bus.brief import brief as brief

MAX_DEPTH = 64


def unpack(packed: bytes | memoryview, *, strict_map_key: bool) -> Any:
    """The value in `packed`; with `strict_map_key`, the keys of its maps are strings or bytes.

    Raises:
        ValueError: it is not one whole msgpack value, or one that is nested too deeply.
    """
    try:
        value = msgpack.unpackb(packed, strict_map_key=strict_map_key)
    except Exception as error:  # msgpack raises its own classes, TypeError, MemoryError and recursion errors alike
        raise ValueError(f"not msgpack: {error}") from error
    # A level takes a byte at least: what is short cannot be deep, and a batch's header is.
    if len(packed) > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value] if type(value) in (list, dict) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is list or type(item) is dict
        ]
    return bool(level)
