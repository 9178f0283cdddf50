"""How many alerts there are: gathered, limited per run and family, and never silent about the first. Pure.

What is kept is what the readers of the messages believe. A rank that is back before its alert was sent is not told at
all; one that was told and is back is told again, once; one that goes to and fro costs as little as one that stays.
Times are passed in, on one monotonic clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from allranks_collector.alerts.rules import FAMILIES, LASTING, Group, Happening

GATHER_S = 2.0
# Messages of all runs together in one interval; what is beyond it waits.
MOST_IN_ALL = 100
# What waits to be told, per run and family: ranks, and what does not last.
_MOST_KEPT = 10_000
_MOST_PASSING = 100


@dataclass
class _Waiting:
    """What waits for its message.

    Attributes:
        more: how many came beside it and are not kept, or are over.
        since: when the first of it came.
        sent: when the newest messages went.
    """

    sent: deque[float]
    kept: dict[Hashable, Happening] = field(default_factory=dict[Hashable, Happening])
    more: int = 0
    since: float = math.inf

    def put(self, happening: Happening, since: float, most: int) -> None:
        if len(self.kept) >= most:
            self.more += 1
            return
        self.since = min(since, self.since) if self.kept else since
        self.kept[happening.subject] = happening

    def take(self) -> tuple[tuple[Happening, ...], int]:
        """What waits, and how many more; nothing waits then."""
        taken = tuple(self.kept.values()), self.more
        self.kept, self.more, self.since = {}, 0, math.inf
        return taken

    def due(self, interval_s: float, gather_s: float) -> float:
        if not self.kept:
            return math.inf
        is_full = len(self.sent) == self.sent.maxlen
        return max(self.since + gather_s, self.sent[0] + interval_s if is_full else -math.inf)


@dataclass
class _Topic:
    """One family of one run.

    Attributes:
        told: the subjects of which the readers believe that they are bad.
    """

    bad: _Waiting
    back: _Waiting
    told: set[Hashable] = field(default_factory=set[Hashable])


class Limits:
    """Takes in what happens, and says what is to be sent when.

    Args:
        interval_s: in any time of this length at most a family's `burst` messages go out for one run, as many
            recoveries, and `most_in_all` for all runs together.
        gather_s: so long after the first others may join its message.
    """

    def __init__(self, interval_s: float, most_in_all: int = MOST_IN_ALL, gather_s: float = GATHER_S) -> None:
        self._interval_s = interval_s
        self._gather_s = gather_s
        self._topics: dict[tuple[int, str], _Topic] = {}
        self._sent: deque[float] = deque(maxlen=most_in_all)

    def bad(self, happening: Happening, since: float) -> None:
        """Takes in something to alert of; `since` may lie ahead, where it may yet turn out to be nothing."""
        rule, run, subject = happening.rule, happening.run, happening.subject
        topic = self._topic(run, rule.family, rule.burst)
        if rule.lasts:
            for other in self._lasting(run):
                if other is not topic:  # it is in another state by now
                    other.bad.kept.pop(subject, None)
                    other.back.kept.pop(subject, None)
        if subject in topic.back.kept:
            del topic.back.kept[subject]  # they believe so still
        elif subject in topic.bad.kept:
            if rule.is_once:
                topic.bad.kept[subject] = happening
            else:
                topic.bad.kept[subject].join(happening)
            topic.bad.since = min(topic.bad.since, since)
        elif subject not in topic.told:
            topic.bad.put(happening, since, _MOST_KEPT if rule.is_once else _MOST_PASSING)
        if rule.family == "end":
            down = self._topics.get((run, "down"))
            if down is not None and down.bad.kept:
                topic.bad.since = min(topic.bad.since, down.bad.since)  # one message for both

    def good(self, happening: Happening, now: float) -> None:
        """Takes in that the subject is well again: told where it was told to be bad, and only there."""
        subject, is_told = happening.subject, False
        for topic in self._lasting(happening.run):
            if topic.bad.kept.pop(subject, None) is not None:
                topic.bad.more += 1
            if subject in topic.told and not is_told:
                is_told = True
                if subject not in topic.back.kept:
                    topic.back.put(happening, now, _MOST_KEPT)
            elif subject in topic.told:
                topic.told.discard(subject)
                topic.back.kept.pop(subject, None)

    def drop(self, run: int, subject: Hashable) -> None:
        """Takes in that the subject is of no concern any more, as one that has finished."""
        for topic in self._lasting(run):
            topic.bad.kept.pop(subject, None)
            topic.back.kept.pop(subject, None)
            topic.told.discard(subject)

    def withdraw(self, run: int, family: str, subject: Hashable) -> None:
        """Takes back what turned out to be nothing, where it has not been told."""
        topic = self._topics.get((run, family))
        if topic is not None:
            topic.bad.kept.pop(subject, None)

    def forget(self, run: int) -> None:
        """Drops all of a run."""
        self._topics = {key: topic for key, topic in self._topics.items() if key[0] != run}

    def restore(self, run: int, told: Mapping[str, Iterable[Hashable]], at: float, *, is_recovery: bool) -> None:
        """Takes in a message that was sent before: by family what it told; from the oldest to the newest."""
        for family, subjects in told.items():
            rule = FAMILIES.get(family)
            if rule is None:
                continue
            topic = self._topic(run, family, rule.burst)
            (topic.back if is_recovery else topic.bad).sent.append(at)
            if is_recovery:
                for one in self._lasting(run):
                    one.told.difference_update(subjects)
            elif rule.is_once:
                topic.told.update(subjects)
        self._sent.append(at)

    def is_told(self, run: int, family: str, subject: Hashable) -> bool:
        """Whether the readers believe that the subject is bad."""
        topic = self._topics.get((run, family))
        return topic is not None and subject in topic.told

    def due(self, now: float) -> Iterator[Group]:
        """What is to be sent now; it counts as told."""
        for (run, family), topic in sorted(self._topics.items(), key=lambda item: item[0][1] != "end"):
            if self._room_at() > now:
                return
            if topic.bad.due(self._interval_s, self._gather_s) <= now:
                happenings, more = topic.bad.take()
                topic.told |= {one.subject for one in happenings if one.rule.is_once}
                causes = self._causes(run, now) if family == "end" else ()
                self._sends(topic.bad, now)
                yield Group(happenings, more, causes=causes)
            if topic.back.due(self._interval_s, self._gather_s) <= now and self._room_at() <= now:
                happenings, more = topic.back.take()
                topic.told -= {one.subject for one in happenings}
                self._sends(topic.back, now)
                yield Group(happenings, more, is_recovery=True)

    def next_at(self) -> float:
        """When something is to be sent next, if nothing happens before; infinity where nothing waits."""
        waits = (
            one.due(self._interval_s, self._gather_s)
            for topic in self._topics.values()
            for one in (topic.bad, topic.back)
        )
        return max(min(waits, default=math.inf), self._room_at())

    @property
    def is_waiting(self) -> bool:
        """True while there is something to send."""
        return any(topic.bad.kept or topic.back.kept for topic in self._topics.values())

    def _causes(self, run: int, now: float) -> tuple[Happening, ...]:
        """The ranks that fell and are not told yet: the message about the run's end tells them."""
        down = self._topics.get((run, "down"))
        if down is None or not down.bad.kept:
            return ()
        causes, _ = down.bad.take()
        down.told |= {one.subject for one in causes}
        down.bad.sent.append(now)
        return causes

    def _sends(self, waiting: _Waiting, now: float) -> None:
        waiting.sent.append(now)
        self._sent.append(now)

    def _room_at(self) -> float:
        return self._sent[0] + self._interval_s if len(self._sent) == self._sent.maxlen else -math.inf

    def _lasting(self, run: int) -> Iterator[_Topic]:
        for family in LASTING:
            topic = self._topics.get((run, family))
            if topic is not None:
                yield topic

    def _topic(self, run: int, family: str, burst: int) -> _Topic:
        topic = self._topics.get((run, family))
        if topic is None:
            topic = _Topic(_Waiting(deque(maxlen=burst)), _Waiting(deque(maxlen=burst)))
            self._topics[run, family] = topic
        return topic
