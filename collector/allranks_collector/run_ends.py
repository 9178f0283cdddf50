"""What became of a run of which nobody lives any more, from how its ranks ended. Pure.

failed      a rank did: by an exception, an exit code, or a signal that a process brings upon itself
dead        nobody knows how: its process is gone, or its host was lost
killed      somebody ended it by a signal
preempted   its scheduler did (preemption, a time limit, a cancelled job): by a signal that tells it to end
"""

from __future__ import annotations

from collections.abc import Iterable

from allranks_collector.verdict import TERMINATED, signal_kind

# The worst comes first: it is what the run is.
_WORST_FIRST = ("failed", "dead", "killed", "preempted")
# The exceptions that Python and torchelastic make of a signal that asks for the end.
_TOLD_TO_END = frozenset({"KeyboardInterrupt", "SignalException"})
# The states of a run of which nothing more is to come.
ENDED_RUN = frozenset({"finished", *_WORST_FIRST})


def run_end(ends: Iterable[str | None], scheduler: str | None) -> str:
    """What became of a run with at least one rank that is dead or has failed, and none that lives.

    Args:
        ends: of each such rank: the type of the exception, the name of the signal or the exit code that ended it;
            None where nobody knows.
        scheduler: what runs the job, such as `slurm`; None where nothing does.
    """
    found = {_end(end, scheduler) for end in ends}
    return next((word for word in _WORST_FIRST if word in found), "dead")


def _end(end: str | None, scheduler: str | None) -> str:
    if not end or end == "0":
        return "dead"
    kind = TERMINATED if end.rpartition(".")[2] in _TOLD_TO_END else signal_kind(end)
    if kind is None:
        return "failed"
    if kind is TERMINATED:
        return "preempted" if scheduler else "killed"
    return "killed" if kind.name == "killed" else "failed"
