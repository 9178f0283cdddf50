"""What differs between the ranks of an attempt, and which values that should agree do not. Pure.

Ranks are alike until somebody shows otherwise: a group is a value with all ranks that have it, the largest group is
what the others differ from. What is another on every rank by nature is left out, by a table.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from allranks_collector.folding import ranks_text

# Clocks nearer to the median than this are right, in seconds.
CLOCK_TOLERANCE_S = 1.0
# Relative, of metrics that should agree.
TOLERANCE = 1e-6

_MAX_VALUE_CHARS = 120
_MAX_RANGES = 10
_MAX_HOSTS = 3
_MAX_GROUPS = 5
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Section:
    """A part of what ranks say. `absence_counts`: that a rank has no such entry is a difference too."""

    name: str
    title: str
    absence_counts: bool = False


# In the order of how telling a difference is.
SECTIONS = (
    Section("git", "git", absence_counts=True),
    Section("packages", "package"),
    Section("python", "Python"),
    Section("torch", "torch"),
    Section("gpu", "GPU"),
    Section("clock", "clock"),
    Section("env", "environment", absence_counts=True),
    # Many a program tells its configuration on rank 0 alone.
    Section("config", "config"),
    Section("host", "host"),
)

# What is another on every rank, or every node, by nature.
_NATURAL: Mapping[str, re.Pattern[str]] = {
    "env": re.compile(
        r"(.*_)?(LOCAL_|GROUP_|ROLE_|NODE_|GLOBAL_|PROC_|TASK_)?RANK|.*_(PROCID|LOCALID|NODEID|HOSTID|PID)"
        r"|(CUDA|HIP|ROCR|NVIDIA|GPU)_VISIBLE_DEVICES|TORCHELASTIC_ERROR_FILE|ALLRANKS_(RANK|PARENT_RUN|WRAPPER_RUN|CONSOLE_BEHIND)"
        r"|NVIDIA_(CPU|GPU|DRIVER_)?(AFFINITY|DEVICE_ID).*"
    ),
    "config": re.compile(
        r"(.*/)?((local|global|node|process|ddp|dp|tp|pp|worker)_)*(rank|pid|host|hostname|device|gpu|gpu_id)"
        r"|(.*/)?(local_process_index|process_index)",
        re.IGNORECASE,
    ),
    "host": re.compile(r"name"),
}

# Metrics that every rank of a synchronous training has alike; whole parts of a name (`train/lr`, `lr-AdamW/pg1`).
_USUAL = re.compile(
    r"(lr|learning_rate|learningrate|loss_scale|grad_scale|weight_decay|momentum|epoch)(_?(group|pg)?_?\d+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Group:
    """The ranks, ascending, that have this value; `hosts` where they are all the ranks of some, but not of all.

    A `value` of None is that they do not have the entry.
    """

    value: str | None
    ranks: tuple[int, ...]
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """An entry in which ranks differ: groups, the largest first.

    `each` is `rank` or `host` where every one of them has a value of its own.
    """

    section: Section
    name: str
    groups: tuple[Group, ...]
    each: str | None = None

    @property
    def text(self) -> str:
        """`62 ranks have 2.4.0 · ranks 17, 41 have 2.3.1`."""
        return f"each {self.each} has its own" if self.each else sentence(self.groups)


@dataclass(frozen=True)
class Divergence:
    """A value that should agree, at the first step at which it does not."""

    name: str
    step: int
    groups: tuple[Group, ...]

    @property
    def text(self) -> str:
        """`62 ranks have 0.41 · rank 17 has 0.43`."""
        return sentence(self.groups)


def differences(
    told: Mapping[int, Mapping[str, Any]],
    config: Mapping[int, Mapping[str, Any]],
    offsets_ns: Mapping[int, int],
    hosts: Mapping[int, str],
) -> list[Difference]:
    """What differs, the most telling first; what every rank has a value of its own for comes last.

    Args:
        told: by rank, what it said of its surroundings: parts by name, each a mapping.
        config: by rank, its configuration.
        offsets_ns: by rank, what its clock lacks to the collector's.
        hosts: by rank, where it runs.
    """
    found: list[Difference] = []
    for section in SECTIONS:
        if section.name == "clock":
            found += _of_clocks(section, offsets_ns, hosts)
            continue
        parts: Mapping[int, Any] = config
        if section.name != "config":
            parts = {rank: body.get(section.name) for rank, body in told.items()}
        entries = {rank: _flat(part) for rank, part in parts.items() if isinstance(part, Mapping)}
        found += _of_section(section, entries, hosts)
    return sorted(found, key=lambda difference: difference.each is not None)


def is_usual(key: str) -> bool:
    """Whether this metric should agree between ranks, by its name."""
    return any(_USUAL.fullmatch(part) for part in re.split(r"[/.\s-]+", key))


def first_divergence(
    name: str, steps: Mapping[int, Mapping[int, Any]], hosts: Mapping[int, str], *, tolerance: float = 0.0
) -> Divergence | None:
    """The first of these steps at which ranks have different values; None where there is none.

    Args:
        steps: by step and rank, the value.
        tolerance: relative, for numbers; 0 compares exactly, whatever values are.
    """
    for step in sorted(steps):
        groups = grouped(steps[step], hosts, tolerance=tolerance)
        if len(groups) > 1:
            return Divergence(name, step, groups)
    return None


def grouped(values: Mapping[int, Any], hosts: Mapping[int, str], *, tolerance: float = 0.0) -> tuple[Group, ...]:
    """The ranks by value, the largest group first; of two as large the one with the lowest rank."""
    by_value: dict[object, tuple[str | None, list[int]]] = {}
    anchors = _anchors(values, tolerance) if tolerance else {}
    for rank in sorted(values):
        value = anchors.get(rank, values[rank])
        by_value.setdefault(_like(value), (_text(value), []))[1].append(rank)
    ordered = sorted(by_value.values(), key=lambda group: (-len(group[1]), group[1][0]))
    return tuple(Group(text, tuple(ranks), _whole_hosts(ranks, values, hosts)) for text, ranks in ordered)


def sentence(groups: Sequence[Group]) -> str:
    """Who has what, in one line that is readable for any number of ranks."""
    ranks = sum(len(group.ranks) for group in groups)
    told = [_told(group, is_majority=at == 0 and 2 * len(group.ranks) > ranks) for at, group in enumerate(groups)]
    more = len(told) - _MAX_GROUPS
    if more > 1:
        others = sum(len(group.ranks) for group in groups[_MAX_GROUPS:])
        told[_MAX_GROUPS:] = [f"{others} ranks have {more} other values"]
    return " · ".join(told)


def _told(group: Group, *, is_majority: bool) -> str:
    count = len(group.ranks)
    verb = "has" if count == 1 else "have"
    what = f"{'does' if count == 1 else 'do'} not have it" if group.value is None else f"{verb} {group.value}"
    if is_majority:
        return f"{count:,} rank{'' if count == 1 else 's'} {what}"
    who = f"rank{'' if count == 1 else 's'} {_some(group.ranks)}"
    where = ", ".join(group.hosts) if len(group.hosts) <= _MAX_HOSTS else f"{len(group.hosts)} hosts"
    return f"{who} ({where}) {what}" if where else f"{who} {what}"


def _some(ranks: Sequence[int]) -> str:
    """Ranks in short, and how many they are where that is too long."""
    ranges = ranks_text(ranks).split(",")
    if len(ranges) <= _MAX_RANGES:
        return ", ".join(ranges)
    return f"{', '.join(ranges[:_MAX_RANGES])}, … ({len(ranks):,} ranks)"


def _of_section(
    section: Section, entries: Mapping[int, Mapping[str, Any]], hosts: Mapping[int, str]
) -> list[Difference]:
    natural = _NATURAL.get(section.name)
    names = sorted({name for part in entries.values() for name in part})
    found: list[Difference] = []
    for name in names:
        if natural is not None and natural.fullmatch(name):
            continue
        values = {rank: part[name] for rank, part in entries.items() if name in part}
        if section.absence_counts:
            values = {**dict.fromkeys(entries, _ABSENT), **values}
        groups = grouped(values, hosts)
        if len(groups) > 1:
            found.append(Difference(section, name, groups, _each(groups)))
    return found


def _of_clocks(section: Section, offsets_ns: Mapping[int, int], hosts: Mapping[int, str]) -> list[Difference]:
    if len(offsets_ns) < 2:
        return []
    middle = median(offsets_ns.values())
    # A clock that lacks less than the others is ahead of them.
    ahead_s = {rank: (middle - offset) / 1e9 for rank, offset in offsets_ns.items()}
    values = {rank: _clock(ahead) for rank, ahead in ahead_s.items()}
    groups = grouped(values, hosts)
    return [Difference(section, "time", groups)] if len(groups) > 1 else []


def _clock(ahead_s: float) -> str:
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return "the same time"
    amount = f"{abs(ahead_s):.1f}" if abs(ahead_s) < 10 else f"{abs(ahead_s):.0f}"
    return f"a clock {amount} s {'ahead' if ahead_s > 0 else 'behind'}"


def _each(groups: Sequence[Group]) -> str | None:
    """Of what every one has its own, where there are more than two."""
    if len(groups) < 3 or any(group.value is None for group in groups):
        return None
    if all(len(group.ranks) == 1 for group in groups):
        return "rank"
    return "host" if all(len(group.hosts) == 1 for group in groups) else None


def _whole_hosts(ranks: Sequence[int], among: Mapping[int, Any], hosts: Mapping[int, str]) -> tuple[str, ...]:
    """The hosts whose ranks these are, all of them; none where they are not, or there is one host only."""
    mine = {hosts.get(rank, "") for rank in ranks}
    everybody = {hosts.get(rank, "") for rank in among}
    if "" in mine or len(everybody) < 2 or mine == everybody:
        return ()
    there = sum(1 for rank in among if hosts.get(rank) in mine)
    return tuple(sorted(mine)) if there == len(ranks) else ()


def _anchors(values: Mapping[int, Any], tolerance: float) -> dict[int, float]:
    """By rank, the least value that its own is as good as equal to: those that are so share it."""
    numbers = sorted((value, rank) for rank, value in values.items() if _is_number(value) and math.isfinite(value))
    anchors: dict[int, float] = {}
    anchor = math.nan
    for value, rank in numbers:
        if not math.isclose(value, anchor, rel_tol=tolerance):
            anchor = value
        anchors[rank] = anchor
    return anchors


class _Absent:
    """Stands for an entry that a rank does not have."""


_ABSENT = _Absent()


def _like(value: Any) -> object:
    """What equal values have in common: 1 and 1.0 do, and NaN with itself; a truth value is no number."""
    if _is_number(value):
        return "nan" if value != value else value
    return value if isinstance(value, str) else (type(value).__name__, _whole(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _text(value: Any) -> str | None:
    """A value as it is shown; None for an entry that is not there."""
    if isinstance(value, _Absent):
        return None
    text = _whole(value)
    text = " ".join(text.split()) if text.strip() else repr(text)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 1]}…"


def _flat(part: Mapping[Any, Any], before: str = "", depth: int = 0) -> dict[str, Any]:
    """Entries of mappings in mappings by names with slashes."""
    found: dict[str, Any] = {}
    for key, value in part.items():
        if isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
            found |= _flat(value, f"{before}{key}/", depth + 1)
        else:
            found[f"{before}{key}"] = value
    return found
