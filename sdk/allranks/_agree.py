"""Values that should agree between ranks, as they are kept for the comparison."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

# The names are kept under this prefix, with objects of this type (protocol.md §5).
PREFIX = "agree/"
TYPE = "agree"
_MAX_CHARS = 256


def agreed(value: Any) -> Any:
    """`value` as it is kept: a number, or text; what is longer than 256 characters by its beginning and its SHA-256.

    Raises:
        TypeError: it is neither, or a tensor on a device, which would have to be waited for.
    """
    if isinstance(value, bool | str | float):
        return _short(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else _short(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _short(bytes(value).hex())
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.device.type != "cpu":
        raise TypeError(f"a tensor on {value.device} would have to be waited for: give its .item()")
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):  # a scalar of numpy or torch
        return agreed(value.item())
    raise TypeError(f"it is a number or short text, not a {type(value).__name__}")


def _short(text: str) -> str:
    if len(text) <= _MAX_CHARS:
        return text
    return f"{text[:64]}… sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
