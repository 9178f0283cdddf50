"""The console's part of the collector double: lines that a test writes, under the filters of the API."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Line = dict[str, Any]
Params = dict[str, list[str]]

STARTED = 1_700_000_000.0
_RE2_ERROR = "missing closing )"


def line(number: int, text: str = "", **fields: Any) -> Line:
    """A line as the API gives it; lines with a higher number were printed later."""
    values: Line = {
        "number": number, "time": STARTED + number, "rank": 0, "attempt": 1, "host": "node-0", "stream": "stdout",
        "line": number - 1, "text": text or f"line {number}", "open": False,
    }  # fmt: skip
    return values | fields


def open_line(text: str, **fields: Any) -> Line:
    """A line that may still change."""
    return line(0, text) | {"number": None, "line": 0, "open": True} | fields


@dataclass
class Logs:
    """What `/api/runs/ID/logs` says. Tests change it at any time.

    Attributes:
        lines: in the order of arrival, which their numbers tell.
        open: those that may still change.
        steps: the number of a line by the step that was logged around it.
        most: how many lines an answer has at most, as if they were very long.
    """

    lines: list[Line] = field(default_factory=list[Line])
    open: list[Line] = field(default_factory=list[Line])
    steps: dict[int, int] = field(default_factory=dict[int, int])
    most: int = 10_000

    def answer(self, params: Params) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        one = {name: values[0] for name, values in params.items()}
        try:
            wanted = _filter(one)
        except re.error:
            return 400, {"error": f"grep={one['grep']}: wanted a regular expression as RE2 takes it ({_RE2_ERROR})"}
        newest = max((entry["number"] for entry in self.lines), default=0)
        lines = sorted(
            (entry for entry in self.lines if wanted(entry)), key=lambda entry: (entry["time"], entry["number"])
        )
        if "odd" in one:
            times = Counter(map(_likeness, lines))
            lines = [entry for entry in lines if times[_likeness(entry)] == 1]
        total = len(lines)
        limit = min(self.most, int(one.get("limit", "1000")))
        offset: int | None = None
        is_end = True
        if "since" in one:
            page = [entry for entry in lines if entry["number"] > int(one["since"])][:limit]
        elif {"offset", "at", "step"} & set(one):
            if "step" in one and int(one["step"]) not in self.steps:
                return 400, {"error": f"step={one['step']}: wanted a step that one of these ranks has logged"}
            offset = int(one["offset"]) if "offset" in one else self._around(one, lines, limit)
            page = lines[offset : offset + limit]
            is_end = offset + limit >= total
        else:
            page = lines[-limit:]
        if one.get("fold") == "true":
            page = _folded(page)
        page = page + ([entry for entry in self.open if wanted(entry)] if is_end else [])
        return 200, {
            "lines": page, "newest": newest, "total": total if one.get("total") == "true" else None, "offset": offset,
            "next": None, "previous": None,
        }  # fmt: skip

    def _around(self, one: dict[str, str], lines: list[Line], limit: int) -> int:
        number = self.steps[int(one["step"])] if "step" in one else int(one["at"])
        middle = len([entry for entry in lines if entry["number"] < number])
        return max(0, min(middle - limit // 2, len(lines) - limit))


def _filter(one: dict[str, str]) -> Callable[[Line], bool]:
    pattern = re.compile(one.get("grep", ""))
    ranks = {number for part in one.get("ranks", "").split(",") if part for number in _span(part)}

    def wanted(entry: Line) -> bool:
        return bool(
            (not ranks or entry["rank"] in ranks)
            and entry["stream"] in (one.get("stream", entry["stream"]), "note")
            and pattern.search(_plain(entry["text"]))
            and entry["time"] < float(one.get("end", "inf"))
        )

    return wanted


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;:]*m", "", text)


def _likeness(entry: Line) -> str:
    return re.sub(r"\d+", "0", _plain(entry["text"]))


def _folded(lines: list[Line]) -> list[Line]:
    rows: list[Line] = []
    alike: dict[tuple[str, str], list[Line]] = {}
    for entry in lines:
        same = alike.setdefault((entry["text"], entry["stream"]), [])
        like = next(
            (row for row in same if entry["rank"] not in row["ranks"] and abs(row["time"] - entry["time"]) <= 10),
            None,
        )
        if like is None:
            row = {**entry, "ranks": [entry["rank"]], "count": 1}
            rows.append(row)
            same.append(row)
        else:
            like["ranks"] = sorted([*like["ranks"], entry["rank"]])
            like["count"] += 1
    return rows
