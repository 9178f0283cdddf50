"""Where a run's id comes from: facts that all ranks of a launch share and no other launch has. Pure.

Each source is a function of a `Situation`; `SOURCES` has them in the order in which they are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import launchers
from .facts import Facts, Process
from .launchers import Env, Place


@dataclass(frozen=True)
class Situation:
    """All that a source may look at.

    Attributes:
        anchor: the process that started the ranks of this host: their nearest ancestor which was not itself
            started at this place. Wrappers (`bash -c`, numactl) inherit the place and are passed over.
    """

    env: Env
    place: Place
    facts: Facts
    anchor: Process
    one_host: bool

    @property
    def anchor_facts(self) -> tuple[str, ...]:
        """The anchor, named for ever, and the port: one script may start several worlds side by side."""
        port = (self.env if self.anchor is self.facts.me else self.facts.me.env).get("MASTER_PORT", "")
        return (self.facts.boot_id, str(self.facts.pid_ns), str(self.anchor.pid), str(self.anchor.start), port)

    @property
    def endpoint(self) -> tuple[str, ...]:
        """MASTER_ADDR and MASTER_PORT, empty where not told."""
        return (self.env.get("MASTER_ADDR", ""), self.env.get("MASTER_PORT", ""))


@dataclass(frozen=True)
class Source:
    """Where a run's id comes from.

    Attributes:
        run: facts that all ranks share, in each life of the run.
        launch: facts that all ranks share, new in each life.
        weak: another run may have the same `run` facts.
        crowded: only on this host.
    """

    run: tuple[str, ...]
    launch: tuple[str, ...] = ()
    weak: bool = False
    crowded: bool = False


def _torchrun(at: Situation) -> Source | None:
    rdzv_id = launchers.torchrun_id(at.env)
    if rdzv_id is None:
        return None
    # People write --rdzv-id=100: user and job keep two such runs apart.
    run = ("torchrun", str(at.facts.uid), rdzv_id, *(launchers.slurm_job(at.env) or ()))
    return Source(run, at.endpoint + (at.anchor_facts if at.one_host else ()))


def _slurm(at: Situation) -> Source | None:
    job = launchers.slurm_job(at.env)
    if job is None:
        return None
    step = launchers.slurm_step(at.env)
    if at.place.launcher == "slurm":
        return Source(("slurm", *job, str("batch" if step is None else step)))
    if at.place.launcher in launchers.MPI_LAUNCHERS:
        # mpirun's remote daemons run in a step of their own, its local ranks in none: the step is not common.
        return Source(("slurm", *job), (launchers.mpi_job(at.env) or "",))
    return _within_job(at, ("slurm", *job, "" if step is None else str(step)))


def _mpi(at: Situation) -> Source | None:
    job = launchers.mpi_job(at.env)
    if job is None:
        return None
    by_mpi = at.place.launcher in launchers.MPI_LAUNCHERS
    below = () if by_mpi or not at.one_host else at.anchor_facts
    return Source(("mpi", str(at.facts.uid), job, *below))


def _kubernetes(at: Situation) -> Source | None:
    job = launchers.kubernetes_job(at.env)
    if job is None:
        return None
    facts = ("kubernetes", *job)
    if at.place.launcher == "kubernetes" or not at.one_host:
        source = Source(facts, at.endpoint if at.place.launcher == "torchrun" else ())
    else:
        source = _within_job(at, (*facts, at.env.get("JOB_COMPLETION_INDEX", "")))
    return replace(source, weak=source.weak or not job[1])


def _within_job(at: Situation, job: tuple[str, ...]) -> Source:
    """A launcher within a batch job, which may start several one after the other, or side by side.

    On one host the launcher's command line tells them apart, and is the same again after a requeue; the same
    command started twice in one job is the same run's next attempt.
    """
    if not at.one_host:
        return Source(job, at.endpoint, weak=at.place.is_by_hand)
    port = at.anchor_facts[-1]
    return Source((*job, port, *at.anchor.argv), at.anchor_facts, crowded=at.place.is_by_hand)


def _master(at: Situation) -> Source | None:
    if at.one_host or not at.env.get("MASTER_ADDR"):
        return None
    return Source(("master", *at.endpoint), weak=True)


def _parent(at: Situation) -> Source:
    return Source(("parent", *at.anchor_facts), weak=not at.one_host, crowded=at.one_host and at.place.is_by_hand)


# In order: the first that says something names the run.
SOURCES: tuple[Callable[[Situation], Source | None], ...] = (_torchrun, _slurm, _mpi, _kubernetes, _master, _parent)


def find_source(env: Env, facts: Facts, place: Place) -> Source:
    """The first source that says something."""
    at = Situation(env, place, facts, find_anchor(env, facts), launchers.is_one_host(env, place))
    return next(source for find in SOURCES if (source := find(at)) is not None)


def find_anchor(env: Env, facts: Facts) -> Process:
    """The process that started the ranks of this host.

    It is the nearest ancestor that was exec'd without this process's place. It is this process itself where it
    took its place after its own start, and so starts the others (Lightning's main process) — unless it was forked
    or made by multiprocessing, as ranks are.
    """
    ranks = [name for name in launchers.RANK_NAMES if env.get(name)]
    told_at_exec = any(facts.me.env.get(name) == env[name] for name in ranks)
    if ranks and not told_at_exec and not facts.forked and facts.mp_parent is None:
        return facts.me
    place = facts.me.env
    for process in facts.ancestors:
        if not place or any(process.env.get(name) != value for name, value in place.items()):
            return process
    return facts.ancestors[-1] if facts.ancestors else Process(0, 0)
