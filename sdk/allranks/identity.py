"""Who this process is: which run, which launch of it, which rank.

All ranks of one launch find the same run with no user act, and nobody else falls into it. `resolve` is pure: it
is given the environment, the facts of the process, and what torch.distributed tells; `identify` gathers them.

    run id: a multiprocessing child that runs the user's main module again: its parent's
            id= · ALLRANKS_RUN_ID
            a parent that called init and started this rank
            an ancestor that wraps this command (`allranks run`)
            what the ranks agreed on in torch's store
            `sources`: torchrun · Slurm · MPI · Kubernetes · MASTER_ADDR:MASTER_PORT · the ranks' common parent
            else: a run of its own

Launches that look alike on one host are told apart by `launches`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from allranks_bus import home
from allranks_bus.errors import AllranksError
from allranks_bus.events import is_run_id
from allranks_bus.limits import MAX_WORLD_SIZE

from . import launchers, launches
from ._digest import sha256
from .facts import Dist, Facts, dist_agree, dist_probe, gather_facts
from .launchers import Env, Place
from .names import run_name
from .parents import ParentRun, own_parent, own_wrapper
from .sources import find_source

DEFAULT_PROJECT = "default"
# A collector takes no longer ones.
_MAX_NAME_CHARS = 1024
_ID_LENGTH = 10  # of base32: 50 bits


class IdentityError(AllranksError):
    """An argument of `init` cannot say who this process is."""

    def __init__(self, argument: str, value: object, expected: str) -> None:
        super().__init__(f"{argument}={value!r} cannot be used: expected {expected}")


@dataclass(frozen=True)
class Identity:
    """One process's place in one launch of one run.

    Attributes:
        launch: the same for all ranks of this launch, new for a restart or requeue.
        launcher: what the rank was taken from: a row of `launchers.ROWS`, `torch`, or `single`.
        weak: another launch could have the same facts, and be taken for this one; torch.distributed helps.
        crowded: another launch on this host could have the same facts; `launches` tells them apart.
        role: `child` where another process already stands at this place: the parent that started this one.
        problems: what was wrong in the environment and has been passed over, for one warning.
    """

    run: str
    launch: str
    project: str
    group: str | None
    name: str
    rank: int
    world_size: int
    local_rank: int | None
    node_rank: int | None
    launcher: str
    weak: bool = False
    crowded: bool = False
    role: str = "rank"
    problems: tuple[str, ...] = ()


def resolve(
    env: Env,
    *,
    facts: Facts,
    new_token: Callable[[], str],
    rank: int | None = None,
    world_size: int | None = None,
    id: str | None = None,  # noqa: A002  (init's own name for it)
    project: str | None = None,
    group: str | None = None,
    name: str | None = None,
    dist: Dist | None = None,
    turn: int = 0,
    launch_number: int = 0,
) -> Identity:
    """Who this process is. Nothing in the environment can make it raise.

    Args:
        new_token: makes the random id of a run of its own.
        rank, world_size, id, project, group, name: what the user passed to init; None where they did not.
        dist: what torch.distributed tells; None where it is not up.
        turn: how many runs of its launch this process has ended already; all ranks count alike.
        launch_number: of launches that look alike on this host, as `launches` counts them.

    Raises:
        IdentityError: an argument is not a valid id or rank, or the rank lies outside the world.
    """
    given_id, problems = _given_id(env, id)
    place, more = _find_place(env, facts.pid, rank, world_size, dist)
    if place is None and id is None and given_id is not None and _cannot_be(env):
        # A world's run, by a process that cannot be in that world: it would be an attempt that hides the ranks' one.
        given_id = None
        more += ("so it logs into a run of its own, not into that of ALLRANKS_RUN_ID",)
    parent = own_parent(env, facts)
    if parent is not None and facts.main_child:
        who = _as_main_child(parent, place)
    else:
        again = (*(("turn", str(turn)) if turn else ()), *(("launch", str(launch_number)) if launch_number else ()))
        wrapper = None if again else own_wrapper(env, facts, place)
        if wrapper is not None and given_id in (None, wrapper.run):
            who = _as_command(wrapper, env, place)
        else:
            who = _join(env, facts, place, parent, given_id, dist, new_token, again)
    return replace(
        who,
        project=(project or env.get("ALLRANKS_PROJECT") or DEFAULT_PROJECT)[:_MAX_NAME_CHARS],
        group=(group or env.get("ALLRANKS_GROUP") or "")[:_MAX_NAME_CHARS] or None,
        name=(name or env.get("ALLRANKS_NAME") or run_name(who.run))[:_MAX_NAME_CHARS],
        problems=problems + more,
    )


def _join(
    env: Env,
    facts: Facts,
    place: Place | None,
    parent: ParentRun | None,
    given_id: str | None,
    dist: Dist | None,
    new_token: Callable[[], str],
    again: tuple[str, ...],
) -> Identity:
    """The identity by the order at the top of this module, but for a child that runs the main module again.

    `again` tells this run from others that the same facts would name.
    """
    if place is None or (place.is_alone and parent is None):
        lone = place or Place(0, 1, 0, 0, 1, "single")
        own = short_hash("process", facts.boot_id, str(facts.pid_ns), str(facts.pid), str(facts.me.start))
        return _identity(given_id or new_token(), own, lone)
    if again and dist is not None and dist.run and dist.launch:
        return _identity(given_id or dist.run, dist.launch, place)
    if parent is not None and (given_id is None or given_id == parent.run):
        if again:  # the run that the parent exported was an earlier one
            return _identity(short_hash(parent.run, *again), short_hash(parent.launch, *again), place)
        life = launchers.restarts(env)
        is_self = (parent.pid, parent.start) == (facts.me.pid, facts.me.start)
        taken = not is_self and (place.rank, place.world_size) == (parent.rank, parent.world_size)
        # What this process told itself knows of its restarts already, and so does one at its parent's own place.
        launch = parent.launch if is_self or taken or set(life) == {"0"} else short_hash(parent.launch, *life)
        return replace(_identity(parent.run, launch, place), role="child" if taken else "rank")
    if dist is not None and dist.run and dist.launch:
        return _identity(given_id or dist.run, dist.launch, place)
    source = find_source(env, facts, place)
    run = given_id or short_hash(*source.run, *again)
    launch = short_hash("launch", *source.run, *source.launch, *launchers.restarts(env), *again)
    return replace(_identity(run, launch, place), weak=source.weak, crowded=source.crowded)


def _as_main_child(parent: ParentRun, place: Place | None) -> Identity:
    """The parent's own place, whatever the main module passes to init this time: there are no phantom runs."""
    rank = parent.rank if parent.rank is not None else place.rank if place else 0
    world = parent.world_size if parent.world_size is not None else place.world_size if place else 1
    local, node = (place.local_rank, place.node_rank) if place else (None, None)
    launcher = place.launcher if place else "single"
    taken = Place(rank, world, local, node, None, launcher)
    return replace(_identity(parent.run, parent.launch, taken), role="child")


def _as_command(wrapper: ParentRun, env: Env, place: Place | None) -> Identity:
    """A rank of the run that its wrapper began: in the wrapper's place, where it has none of its own."""
    at = place or Place(wrapper.rank or 0, wrapper.world_size or 1, None, None, None, "wrapped")
    life = launchers.restarts(env)
    is_same = (at.rank, at.world_size) == (wrapper.rank, wrapper.world_size)
    # A wrapper in the place of a rank knows of that one's restarts already.
    launch = wrapper.launch if is_same or set(life) == {"0"} else short_hash(wrapper.launch, *life)
    return _identity(wrapper.run, launch, at)


def _identity(run: str, launch: str, place: Place) -> Identity:
    return Identity(
        run=run,
        launch=launch,
        project="",
        group=None,
        name="",
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        node_rank=place.node_rank,
        launcher=place.launcher,
    )


def _find_place(
    env: Env, pid: int, rank: int | None, world_size: int | None, dist: Dist | None
) -> tuple[Place | None, tuple[str, ...]]:
    """The place by argument, torch.distributed, or the table; and what was wrong on the way."""
    _check_number("rank", rank, 0)
    _check_number("world_size", world_size, 1)
    told, problems = launchers.find_place(env, pid)
    if dist is not None:
        world = Place(dist.rank, dist.world_size, None, None, None, "torch")
        told = world if told is None else replace(told, rank=dist.rank, world_size=dist.world_size, world_known=True)
        problems = ()  # of an environment that did not tell it
    if rank is None and world_size is None:
        return told, problems
    if rank is None and told is None and world_size != 1:
        raise IdentityError("world_size", world_size, "a rank beside it: pass rank= too, no launcher tells it")
    at = rank if rank is not None else told.rank if told else 0
    size = world_size if world_size is not None else told.world_size if told else at + 1
    if size > MAX_WORLD_SIZE:
        raise IdentityError("world_size", size, f"at most {MAX_WORLD_SIZE:,}")
    if at >= size:
        raise IdentityError("rank", at, f"a rank below the world's size, {size}: ranks count from 0")
    known = world_size is not None or (told is not None and told.world_known)
    base = told or Place(at, size, None, None, None, "explicit")
    return replace(base, rank=at, world_size=size, world_known=known), problems


def _cannot_be(env: Env) -> bool:
    """Whether the environment names a rank that its world of several does not have."""
    rank = launchers.first(env, ("ALLRANKS_RANK", "RANK"))
    world = launchers.number(launchers.first(env, ("ALLRANKS_WORLD_SIZE", "WORLD_SIZE")))
    if rank is None or world is None or world < 2:
        return False
    number = launchers.number(rank)
    return number is None or number >= world


def _check_number(argument: str, value: object, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise IdentityError(argument, value, f"a whole number of at least {least}")


def _given_id(env: Env, explicit: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The id that the user gave, by argument or environment; a bad one from the environment is mended."""
    if explicit is not None:
        if not isinstance(explicit, str) or not is_run_id(explicit):
            expected = "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
            raise IdentityError("id", explicit, expected)
        return explicit, ()
    text = env.get("ALLRANKS_RUN_ID", "")
    if not text or is_run_id(text):
        return text or None, ()
    mended = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128] or None
    return mended, (f"ALLRANKS_RUN_ID={text!r} is not a valid id: " + (f"using {mended!r}" if mended else "ignored"),)


def short_hash(*facts: str) -> str:
    """Ten lower-case letters and digits that stand for these facts, the same everywhere."""
    text = "\0".join(facts).encode("utf-8", "surrogateescape")
    return base64.b32encode(sha256(text)).decode().lower()[:_ID_LENGTH]


def random_id() -> str:
    """A new run id that nobody else has."""
    return base64.b32encode(os.urandom(8)).decode().lower()[:_ID_LENGTH]


def identify(
    env: Mapping[str, str] | None = None,
    *,
    rank: int | None = None,
    world_size: int | None = None,
    id: str | None = None,  # noqa: A002
    project: str | None = None,
    group: str | None = None,
    name: str | None = None,
    turn: int = 0,
) -> tuple[Identity, Facts]:
    """Who this process is, with the facts that it was found by; arguments and errors as of `resolve`.

    Where torch.distributed is up, the ranks agree on what the first of them found: a launcher's facts, so that
    an elastic restart stays the same run, or something random where those facts could be another launch's too.
    """
    env = os.environ if env is None else env
    facts = gather_facts()

    def found(dist: Dist | None, launch_number: int = 0) -> Identity:
        return resolve(
            env,
            facts=facts,
            new_token=random_id,
            rank=rank,
            world_size=world_size,
            id=id,
            project=project,
            group=group,
            name=name,
            dist=dist,
            turn=turn,
            launch_number=launch_number,
        )

    world = dist_probe()
    who = found(world)
    launch_number = launches.join(home.spool_roots(env), who.launch, who.rank) if who.crowded else 0
    if launch_number:
        who = found(world, launch_number)
    if world is None or who.world_size == 1:
        return who, facts
    run, launch = (random_id(), random_id()) if who.weak else (who.run, who.launch)
    # torchrun's store outlives a restart of its workers: the run is still the same then, the launch is another.
    turns = (str(turn),) if turn else ()
    run = dist_agree("/".join(("run", *turns)), run) or ""
    launch = dist_agree("/".join(("launch", *launchers.restarts(env), *turns)), launch) or ""
    return found(replace(world, run=run, launch=launch), launch_number), facts


def joining(mine: Identity, who: Identity) -> Identity | None:
    """The place of a process that logs into a run without having called `init`; None where it is nobody's rank.

    Args:
        mine: the place that it came to the run with: an implied run's, or that of the process that handed it over.
        who: its own, as `identify` finds it now. One that was handed the run may be a rank, where its maker was none.
    """
    is_placed = who.launcher != "single"
    if mine.role != "child":
        return who if is_placed and who.run == mine.run else None
    if not is_placed:
        return mine
    role = "child" if (who.rank, who.world_size) == (mine.rank, mine.world_size) else who.role
    return replace(who, run=mine.run, launch=mine.launch, role=role)
