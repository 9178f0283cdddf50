"""What is worth an alert, in one table, and how it is said. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from allranks_collector.escapes import shown
from allranks_collector.folding import ranks_text

_MAX_TITLE_CHARS = 250
# As JSON it must fit into a pipe or a small message, whatever characters there are in it.
_MAX_TEXT_CHARS = 4000
_MAX_LINE_CHARS = 300
_MAX_LISTED = 10


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        family: those of one family that come together are one message.
        is_on: unless the settings say otherwise.
        is_once: what has been told of a subject is not told again until it has recovered.
        lasts: a subject can recover from it.
        burst: how many messages of its family a run may send in one interval.
    """

    name: str
    family: str
    level: str
    is_on: bool = True
    is_once: bool = True
    lasts: bool = False
    burst: int = 1


_TABLE = (
    Rule("dead", "down", "ERROR", lasts=True),
    Rule("failed", "down", "ERROR", lasts=True),
    Rule("stalled", "stalled", "WARN", lasts=True),
    Rule("unreachable", "unreachable", "WARN", lasts=True),
    Rule("run-failed", "end", "ERROR"),
    Rule("run-finished", "finish", "INFO", is_on=False),
    Rule("nan", "nan", "ERROR"),
    Rule("no-data", "no-data", "WARN", lasts=True),
    Rule("user", "user", "INFO", is_once=False, burst=10),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _TABLE})
# What may be turned on and off: what a program asks for itself is always sent.
CHOICES = tuple(rule.name for rule in _TABLE if rule.name != "user")
DEFAULT_RULES = tuple(name for name in CHOICES if RULES[name].is_on)

# Of each family one rule: all of them have these limits.
FAMILIES: Mapping[str, Rule] = MappingProxyType({rule.family: rule for rule in _TABLE})
# The families of which a subject can be in one at a time.
LASTING = tuple(dict.fromkeys(rule.family for rule in _TABLE if rule.lasts))

# A rank's states that are worth an alert, with what is said of it.
STATES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dead": ("dead", "is dead"),
        "failed": ("failed", "has failed"),
        "stalled": ("stalled", "is stalled"),
        "unreachable": ("unreachable", "is unreachable"),
    }
)


@dataclass(frozen=True)
class Happening:
    """Something that may be worth an alert.

    Attributes:
        run: its number.
        subject: of what it is told: a writer, a writer's metric, an attempt.
        what: as it is said: `is dead`; of a program's own alert its title.
        reason: more of it, in brackets or as text below.
        writer, rank: whose; None where it is the run's.
        at_ns: when it was recorded; None where it was seen just now.
        level: in place of the rule's.
        ranks: all that have said the same of themselves, in their programs' own words.
    """

    rule: Rule
    run: int
    subject: Hashable
    what: str = ""
    reason: str = ""
    writer: int | None = None
    rank: int | None = None
    at_ns: int | None = None
    level: str = ""
    ranks: set[int] = field(default_factory=set[int], compare=False)

    def join(self, other: Happening) -> None:
        """Takes in that another rank has said the same."""
        self.ranks.update(rank for rank in (self.rank, other.rank) if rank is not None)


@dataclass(frozen=True)
class Group:
    """What one message tells: all of one run and family, in the order in which it came.

    Attributes:
        more: how many more of the kind there were, which are not kept or are over again.
        is_recovery: they are running again.
        causes: what made the run end.
    """

    happenings: Sequence[Happening]
    more: int = 0
    is_recovery: bool = False
    causes: Sequence[Happening] = ()

    @property
    def first(self) -> Happening:
        """What is named."""
        return self.happenings[0]


@dataclass(frozen=True)
class Facts:
    """What is known of the run, and of the first rank that is named.

    Attributes:
        page: the address of the run's page.
        line: what the rank printed last.
        cause: why ranks have failed, where that is none of those that are told of: one that ended well too early.
    """

    run_id: str
    name: str | None = None
    page: str = ""
    host: str | None = None
    step: int | None = None
    line: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Message:
    """An alert as it is sent."""

    run_id: str
    rule: str
    level: str
    title: str
    text: str
    rank: int | None = None


def compose(group: Group, facts: Facts) -> Message:
    """The message about a group: whose it is and what it is in the title, and below what helps."""
    told = group.causes or group.happenings
    first = group.first
    run = f"run {facts.name or facts.run_id}"
    if group.is_recovery and first.rank is None:
        title = f"{run} sends data again"
    elif group.is_recovery:
        title = f"{run}: {_rank(told[0], facts)} is running again{_others(told)}"
    elif facts.cause:
        title = f"{run}{' has failed' if group.causes else ''}: {facts.cause}"
    elif group.causes:
        title = f"{run} has failed: {_said(told[0], facts)}{_others(told)}"
    elif first.rank is None:
        title = f"{run} {first.what}"
    elif first.rule.name == "user":
        title = f"{run}: {first.what}"
    else:
        title = f"{run}: {_said(first, facts)}{_others(told)}"
    rule = "recovered" if group.is_recovery else first.rule.name
    level = "INFO" if group.is_recovery else first.level or first.rule.level
    text = "\n".join(_lines(group, told, facts))
    rank = told[0].rank
    return Message(facts.run_id, rule, level, _short(title, _MAX_TITLE_CHARS), text[:_MAX_TEXT_CHARS], rank)


def _lines(group: Group, told: Sequence[Happening], facts: Facts) -> list[str]:
    first, lines = told[0], list[str]()
    if first.rule.name == "user":
        lines += [shown(line, colours=False)[:_MAX_LINE_CHARS] for line in first.reason.splitlines()[:20]]
        lines += [f"from {_rank(first, facts) if len(first.ranks) < 2 else _speakers(first)}"]
        lines += [
            _short(f"also: {other.what} ({_speakers(other)})", _MAX_LINE_CHARS) for other in told[1:_MAX_LISTED]
        ]
    elif len(told) > 1:
        lines += [
            f"{count} {what}: ranks {ranks}" for what, count, ranks in _by_kind(told, is_back=group.is_recovery)
        ]
    if facts.step is not None and not group.is_recovery:
        lines.append(f"step {facts.step}")
    if facts.line and not group.is_recovery:
        lines.append(_short(f"it printed last: {facts.line}", _MAX_LINE_CHARS))
    left_out = group.more + (max(0, len(told) - _MAX_LISTED) if first.rule.name == "user" else 0)
    if left_out:
        lines.append(f"{left_out} more of this kind were held back")
    if facts.page:
        lines.append(facts.page)
    return lines


def _by_kind(told: Sequence[Happening], *, is_back: bool) -> list[tuple[str, int, str]]:
    """What there is, how often, and of which ranks."""
    if is_back:
        counts = Counter({"running again": len(told)})
        ranks = {"running again": {one.rank for one in told if one.rank is not None}}
    else:
        counts = Counter(one.rule.name for one in told)
        ranks = {
            name: {one.rank for one in told if one.rule.name == name and one.rank is not None} for name in counts
        }
    return [(what, count, ranks_text(sorted(ranks[what]))) for what, count in counts.items()]


def _rank(happening: Happening, facts: Facts) -> str:
    on = f" on {facts.host}" if facts.host else ""
    return f"rank {happening.rank}{on}"


def _speakers(happening: Happening) -> str:
    """Those that have said the same."""
    if len(happening.ranks) < 2:
        return f"rank {happening.rank}"
    return f"{len(happening.ranks)} ranks: {ranks_text(sorted(happening.ranks))}"


def _said(happening: Happening, facts: Facts) -> str:
    reason = f" ({happening.reason})" if happening.reason else ""
    return f"{_rank(happening, facts)} {happening.what}{reason}"


def _others(told: Sequence[Happening]) -> str:
    count = len({one.subject if one.writer is None else one.writer for one in told}) - 1
    return f", and {count} other{'s' if count > 1 else ''}" if count > 0 else ""


def _short(text: str, chars: int) -> str:
    """One line without anything that a terminal or a mail's header would take for more."""
    line = shown(" ".join(text.split()), colours=False)
    return line if len(line) <= chars else f"{line[: chars - 1]}…"
