"""What a writer says of itself in its OPEN record (protocol.md §4), as it is understood: all may be wild. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from allranks_bus import processes

# What is kept in memory of an identity, for each writer.
MAX_IDENTITY_TEXT = 1024
# What a writer can be; who says anything else is taken for a rank. A rank's console has no state of its own.
_ROLES = ("rank", "child", "console")

# How well a writer knows what its run is called, by whether it is a console, and whether nobody has called `init` in
# it: a console does not know the name, and may be heard first; a rank that never called it knows what others told.
_KNOWS = {(False, False): 2, (False, True): 1, (True, False): 0, (True, True): 0}


def knowledge_of(role: object, *, is_implied: bool) -> int:
    """How well such a writer knows what its run is called: who knows it better is believed."""
    return _KNOWS[role == "console", is_implied]


def told_of_run(identity: Mapping[str, Any]) -> tuple[Any, ...]:
    """Project, group, name, notes and tags, as columns of `runs`."""
    tags = identity.get("tags")
    return (
        identity["project"],
        _text_or_none(identity.get("group")),
        _text_or_none(identity.get("name")) or identity["run"],
        _text_or_none(identity.get("notes")),
        json.dumps([tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []),
    )


def role_of(identity: Mapping[str, Any]) -> str:
    """What the writer is."""
    return identity["role"] if identity.get("role") in _ROLES else "rank"


def process_of(identity: Mapping[str, Any]) -> processes.ProcessIdentity:
    """The process that an identity names; what it does not tell is 0 or empty."""

    def number(key: str) -> int:
        value = identity.get(key)
        return value if type(value) is int and 0 <= value < 2**63 else 0

    boot_id = identity.get("boot_id")
    return processes.ProcessIdentity(
        number("pid"), number("pid_start"), boot_id if isinstance(boot_id, str) else "", number("pid_ns")
    )


def wrapper_of(identity: Mapping[str, Any]) -> tuple[int, int] | None:
    """Pid and start of the process that wraps this one and is the same rank of the run; None where none does."""
    told = identity.get("wrapper")
    if not isinstance(told, list | tuple) or len(told) != 2 or not all(type(one) is int for one in told):
        return None
    return told[0], told[1]


def parent_of(identity: Mapping[str, Any]) -> str:
    """The writer, in hex, whose output a console keeps; empty where that is not told."""
    parent = identity.get("parent")
    parent = parent.hex() if isinstance(parent, bytes) else parent
    return parent if isinstance(parent, str) and len(parent) <= MAX_IDENTITY_TEXT else ""


def _text_or_none(value: object) -> str | None:
    """`value` where it is text."""
    return value if isinstance(value, str) else None
