"""Which run, which ranks, which attempt: what a question is about, resolved once for all queries.

AllranksError
└── QueryError
    ├── RunNotFound    no run has this id, prefix or name
    ├── RunAmbiguous   several have                         → give more of the id
    ├── BadQuery       an argument cannot be understood     → correct it
    └── TooMuch        more rows than one answer may hold   → ask for fewer, or export
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allranks_bus.errors import AllranksError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb


class QueryError(AllranksError):
    """A question that cannot be answered as it was put."""


class RunNotFound(QueryError):
    """No run goes by this id, prefix or name."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"no run has the id, the beginning of an id, or the name {reference!r}")


class RunAmbiguous(QueryError):
    """Several runs go by this prefix or name."""

    def __init__(self, reference: str, ids: Sequence[str]) -> None:
        listed = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        super().__init__(f"{reference!r} fits {len(ids)} runs: give more of the id ({listed})")


class BadQuery(QueryError):
    """An argument of the question cannot be understood."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used: expected {expected}")


class TooMuch(QueryError):
    """The answer would hold more rows than fit in one."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the answer would hold more than {limit:,} points: "
            "ask for fewer keys, ranks or steps, for buckets, or export the run"
        )


@dataclass(frozen=True)
class RunRef:
    """A run that exists: its number within the database, its id, and when it was created."""

    run: int
    id: str
    created_ns: int


def find_run(cursor: duckdb.DuckDBPyConnection, reference: str) -> RunRef:
    """The run with this id; else the one whose id begins so; else the one with this name.

    Raises:
        RunNotFound: there is none.
        RunAmbiguous: there are several, and which of them is meant cannot be told.
    """
    rows = cursor.execute(
        "SELECT run, id, created_ns, name = $ref FROM runs"
        " WHERE id = $ref OR starts_with(id, $ref) OR name = $ref ORDER BY created_ns DESC",
        {"ref": reference},
    ).fetchall()
    found = [(RunRef(int(run), str(id_), int(created)), bool(named)) for run, id_, created, named in rows]
    exact = [ref for ref, _ in found if ref.id == reference]
    by_prefix = [ref for ref, _ in found if reference and ref.id.startswith(reference)]
    by_name = [ref for ref, named in found if named]
    for candidates in (exact, by_prefix, by_name):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise RunAmbiguous(reference, [ref.id for ref in candidates])
    raise RunNotFound(reference)


def parse_ranks(text: str | None) -> frozenset[int] | None:
    """The ranks that `0-3,7` names; None, meaning all, for None or an empty text.

    Raises:
        BadQuery: it is neither numbers nor ranges of them, or names more than 2^20 ranks.
    """
    if text is None or not text.strip():
        return None
    ranks: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + (1 << 20):
            raise BadQuery("ranks", text, "ranks and ranges of ranks, as in 0-3,7")
        ranks.update(range(first, last + 1))
    return frozenset(ranks)


def parse_attempt(text: str | None) -> int | str | None:
    """An attempt's number, the word `all`, or None for the newest that has data.

    Raises:
        BadQuery: it is none of these.
    """
    if text is None or text in ("", "newest"):
        return None
    if text == "all":
        return text
    if text.isdecimal():
        return int(text)
    raise BadQuery("attempt", text, "a number, newest or all")
