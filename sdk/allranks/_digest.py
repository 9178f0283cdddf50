"""SHA-256 without what `hashlib` loads for it: OpenSSL takes three of the twenty milliseconds of an `init`."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

# CPython's own, from 3.12 on and before, as its `random` takes them too; an interpreter may be built without.
_MODULES = ("_sha2", "_sha256", "hashlib")


def _first() -> Any:
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name).sha256
    raise ImportError("this Python has no SHA-256")


_sha256 = _first()


def sha256(data: bytes) -> bytes:
    """The 32 bytes of the digest of `data`."""
    return bytes(_sha256(data).digest())
