"""What a rank's error file of torchelastic says, as an exception: type, message and traceback. Pure.

    {"message": {"message": "ValueError: no", "extraInfo": {"py_callstack": "Traceback …"}}}

as `@record` writes it (torch.distributed.elastic.multiprocessing.errors), or a plain text in the place of the map.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_MAX_MESSAGE, _MAX_TRACEBACK = 2_000, 16_000
_TYPED = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (.*))?", re.DOTALL)


def parse(content: bytes) -> dict[str, str] | None:
    """The exception that it tells of: `type`, `message`, `traceback`, each bounded; None where it tells of none."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return None
    told = told.get("message") if isinstance(told, Mapping) else told
    extra: Any = None
    if isinstance(told, Mapping):
        extra = told.get("extraInfo")
        told = told.get("message")
    if not isinstance(told, str) or not told.strip():
        return None
    stack = extra.get("py_callstack") if isinstance(extra, Mapping) else None
    typed = _TYPED.fullmatch(told.strip())
    type_, message = (typed[1], typed[2] or "") if typed is not None else ("error", told.strip())
    return {
        "type": type_[:_MAX_MESSAGE],
        "message": message[:_MAX_MESSAGE],
        "traceback": stack[-_MAX_TRACEBACK:] if isinstance(stack, str) else "",
    }
