"""Stragglers (pure): which rank the others wait for, how much that costs, and in which section.

Ranks that train together all end a step together, however slow one of them is: its own work takes longer, and the
others wait for it in a collective. So what is compared is the work before that: the time in sections other than those
in which ranks wait for each other (`WAITS`). Where such a section is marked too, what is not marked is work as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Sections in which a rank waits for others: long there is who was early.
WAITS = frozenset(
    {"sync", "synchronize", "wait", "barrier", "collective", "comm", "communication"}
    | {"all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter", "broadcast", "grad_sync"}
)
# The name of work that no section was marked for.
UNMARKED = "(unmarked)"
