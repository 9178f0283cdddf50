"""Runs that processes above this one have told it of, in its environment: its parent's, and a wrapper's. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allranks_bus.events import is_run_id

from . import launchers
from .facts import Facts
from .launchers import Env, Place
from .sources import find_anchor

if TYPE_CHECKING:
    from .identity import Identity

# What a process that called init leaves in its environment for the processes that it starts.
PARENT_VARIABLE = "ALLRANKS_PARENT_RUN"
# What `allranks run` leaves in the environment of its command, in the same form.
WRAPPER_VARIABLE = "ALLRANKS_WRAPPER_RUN"


@dataclass(frozen=True)
class ParentRun:
    """The run that a process called init for, as it tells its children."""

    run: str
    launch: str
    boot_id: str
    pid: int
    start: int
    rank: int | None = None
    world_size: int | None = None


def export_parent(identity: Identity, facts: Facts) -> str:
    """The value of ALLRANKS_PARENT_RUN: `run:launch:boot_id:pid:start:rank:world_size`."""
    who = (identity.run, identity.launch, facts.boot_id, facts.me.pid, facts.me.start)
    return ":".join(map(str, (*who, identity.rank, identity.world_size)))


def parse_parent(text: str) -> ParentRun | None:
    """The run in this ALLRANKS_PARENT_RUN (rank and world size may be left out); None if it is not one."""
    run, launch, boot_id, *numbers = [*text.split(":"), "", "", ""][: max(3, text.count(":") + 1)]
    values = [launchers.number(part) if len(part) <= 10 else _long_number(part) for part in numbers]
    if not is_run_id(run) or not launch or len(values) not in (2, 4) or None in values:
        return None
    pid, start, *place = [value for value in values if value is not None]
    return ParentRun(run, launch, boot_id, pid, start, *place)


def _long_number(text: str) -> int | None:
    """A start time in clock ticks may have more digits than a rank."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None


def own_parent(env: Env, facts: Facts) -> ParentRun | None:
    """The run of the process that made this one, by exec or through multiprocessing; or its own before.

    It may be found beyond wrappers that inherited this one's place (`bash -c`), and by a child that runs the main
    module again beyond multiprocessing's fork server. Not of any grandparent: a sweep's driver that called init may
    start a torchrun for each trial.
    """
    parent = parse_parent(env.get(PARENT_VARIABLE, ""))
    if parent is None or parent.boot_id != facts.boot_id:
        return None
    makers = {facts.pid, facts.ppid, facts.mp_parent, *_starters(env, facts)}
    direct = any(
        (process.pid, process.start) == (parent.pid, parent.start) and (process.pid in makers or facts.main_child)
        for process in (facts.me, *facts.ancestors)
    )
    return parent if direct else None


def own_wrapper(env: Env, facts: Facts, place: Place | None) -> ParentRun | None:
    """The run of the wrapper whose command this process belongs to, however far below it.

    Not below a process of the command that has called init itself: what that one starts follows the other rules. And
    not for the ranks of a world that reaches beyond this host: the others could not know of it.
    """
    wrapper, parent = (parse_parent(env.get(name, "")) for name in (WRAPPER_VARIABLE, PARENT_VARIABLE))
    if wrapper is None or wrapper.boot_id != facts.boot_id:
        return None
    above = [(process.pid, process.start) for process in facts.ancestors]
    if (wrapper.pid, wrapper.start) not in above:
        return None
    between = above[: above.index((wrapper.pid, wrapper.start))]
    if parent is not None and parent.boot_id == facts.boot_id and (parent.pid, parent.start) in between:
        return None
    if place is None or (place.rank, place.world_size) == (wrapper.rank, wrapper.world_size):
        return wrapper
    return wrapper if launchers.is_one_host(env, place) else None


def _starters(env: Env, facts: Facts) -> tuple[int, ...]:
    """The pids from this process's parent up to the anchor: wrappers, and who started them."""
    anchor = find_anchor(env, facts)
    pids = [process.pid for process in facts.ancestors]
    return tuple(pids[: pids.index(anchor.pid) + 1]) if anchor.pid in pids else ()
