"""What became of a run of which nobody lives any more, from how its ranks ended. Pure.

failed      a rank did: by an exception, an exit code, or a signal that a process brings upon itself; not because it
            had lost another one that was ended
dead        nobody knows how: its process is gone, or its host was lost
killed      somebody ended it by a signal
preempted   its scheduler did (preemption, a time limit, a cancelled job): by a signal that tells it to end, other
            than the one of Ctrl-C
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from allranks_collector.verdict import KILLED, TERMINATED, Class, exception_kind, signal_kind

# The worst comes first: it is what the run is.
_WORST_FIRST = ("failed", "dead", "killed", "preempted")
# What a rank ends by when another one is gone: it says nothing where it is known how that went.
_ECHO = "echo"
# A person, at a terminal.
_BY_HAND = re.compile(r"(SIGINT|130|KeyboardInterrupt)\b|.*\bgot signal: 2\b")
# The states of a run of which nothing more is to come.
ENDED_RUN = frozenset({"finished", *_WORST_FIRST})


def run_end(ends: Iterable[str | None], scheduler: str | None) -> str:
    """What became of a run with at least one rank that is dead or has failed, and none that lives.

    Args:
        ends: of each such rank: the exception (`type: message`), the name of the signal or the exit code that
            ended it; None where nobody knows.
        scheduler: what runs the job, such as `slurm`; None where nothing does.
    """
    found = {_end(end, scheduler) for end in ends}
    if found == {_ECHO}:
        return "failed"
    return next((word for word in _WORST_FIRST if word in found), "dead")


def _end(end: str | None, scheduler: str | None) -> str:
    if not end or end == "0":
        return "dead"
    kind = signal_kind(end) or exception_kind(end)
    if kind is TERMINATED:
        return "preempted" if scheduler and not _BY_HAND.match(end) else "killed"
    if kind is not None and kind.class_ is Class.ECHO:
        return _ECHO
    return "killed" if kind is KILLED else "failed"
