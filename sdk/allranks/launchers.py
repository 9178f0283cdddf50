"""What each launcher tells its processes: tables, and pure functions over an environment.

Read from the sources and manuals of the launchers themselves:

- torchrun: `torch/distributed/elastic/agent/server/local_elastic_agent.py`; also used by accelerate launch.
- DeepSpeed: `deepspeed/launcher/launch.py` (RANK …, LOCAL_SIZE, CROSS_RANK, CROSS_SIZE).
- Slurm: srun(1) OUTPUT ENVIRONMENT VARIABLES; the reserved step numbers are in `slurm.h` (SLURM_BATCH_SCRIPT …).
- Open MPI: docs.open-mpi.org, "Environment variables set for MPI applications". OMPI_COMM_WORLD_NODE_RANK is
  a process's number on its node across *all* jobs, not a node's number, so it is not read.
- MPICH and Intel MPI: Hydra's PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS. MVAPICH2: user guide.
- Kubernetes: "Indexed Job": JOB_COMPLETION_INDEX, and the host name `JOB-INDEX`. Job name and uid come through
  the downward API (labels batch.kubernetes.io/job-name and …/controller-uid).
- Horovod, Flux, LSF's jsrun: their manuals' lists of variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from allranks_bus.limits import MAX_WORLD_SIZE

Env = Mapping[str, str]

# Step numbers from here up are not steps of tasks: interactive 0xfffffffa, batch …fb, extern …fc, pending …fd.
SLURM_FIRST_RESERVED_STEP = 0xFFFFFFF0
# torchrun's --rdzv-id when nobody gave one (torch/distributed/run.py).
TORCHRUN_NO_ID = "none"


@dataclass(frozen=True)
class Row:
    """One launcher: the variables in which it says where a process stands.

    Where a column holds several names, the first that is set counts.

    Attributes:
        needs: names of which at least one must be set for this row to be looked at (none: always).
    """

    launcher: str
    rank: str
    world_size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_world_size: tuple[str, ...]
    node_rank: tuple[str, ...]
    needs: tuple[str, ...]


def _row(launcher: str, rank: str, world: str, local: str, local_world: str, node: str, needs: str = "") -> Row:
    columns = (tuple(names.split()) for names in (world, local, local_world, node, needs))
    return Row(launcher, rank, *columns)


_SIZES, _NODES = "LOCAL_WORLD_SIZE LOCAL_SIZE NPROC_PER_NODE", "GROUP_RANK NODE_RANK CROSS_RANK"
_TORCHRUN = "TORCHELASTIC_RUN_ID TORCHELASTIC_RESTART_COUNT"
_TASKS = "SLURM_STEP_NUM_TASKS SLURM_NTASKS SLURM_NPROCS"
_WORLD = "ALLRANKS_WORLD_SIZE WORLD_SIZE"
_HYDRA_RANKS, _HYDRA_SIZES = "MPI_LOCALRANKID PMI_LOCAL_RANK", "MPI_LOCALNRANKS PMI_LOCAL_SIZE"
_OMPI, _MV2, _JSM, _HVD = "OMPI_COMM_WORLD", "MV2_COMM_WORLD", "JSM_NAMESPACE", "HOROVOD"

# fmt: off
# In order: the first row that gives a valid rank in a known world wins. Slurm stands before MPI, and is passed
# over where mpirun, and not srun, started the ranks (`slurm_starts_tasks`). LOCAL_RANK's row computes its rank
# (`_local_place`).
ROWS: tuple[Row, ...] = (
    #    launcher     rank                    world size       local rank             local world size       node rank
    _row("explicit",  "ALLRANKS_RANK",        _WORLD,          "LOCAL_RANK",          _SIZES,                _NODES),
    _row("torchrun",  "RANK",                 "WORLD_SIZE",    "LOCAL_RANK",          _SIZES,                "GROUP_RANK", _TORCHRUN),  # noqa: E501
    _row("deepspeed", "RANK",                 "WORLD_SIZE",    "LOCAL_RANK",          _SIZES,                _NODES, "CROSS_SIZE"),  # noqa: E501
    _row("env",       "RANK",                 "WORLD_SIZE",    "LOCAL_RANK",          _SIZES,                _NODES),
    _row("slurm",     "SLURM_PROCID",         _TASKS,          "SLURM_LOCALID",       "",                    "SLURM_NODEID"),  # noqa: E501
    _row("openmpi",   f"{_OMPI}_RANK",        f"{_OMPI}_SIZE", f"{_OMPI}_LOCAL_RANK", f"{_OMPI}_LOCAL_SIZE", ""),
    _row("mvapich2",  f"{_MV2}_RANK",         f"{_MV2}_SIZE",  f"{_MV2}_LOCAL_RANK",  f"{_MV2}_LOCAL_SIZE",  ""),
    _row("mpi",       "PMI_RANK",             "PMI_SIZE",      _HYDRA_RANKS,          _HYDRA_SIZES,          ""),
    _row("horovod",   f"{_HVD}_RANK",         f"{_HVD}_SIZE",  f"{_HVD}_LOCAL_RANK",  f"{_HVD}_LOCAL_SIZE",  f"{_HVD}_CROSS_RANK"),  # noqa: E501
    _row("flux",      "FLUX_TASK_RANK",       "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID",  "",                    ""),
    _row("jsrun",     f"{_JSM}_RANK",         f"{_JSM}_SIZE",  f"{_JSM}_LOCAL_RANK",  f"{_JSM}_LOCAL_SIZE",  ""),
    _row("local",     "LOCAL_RANK",           "WORLD_SIZE",    "LOCAL_RANK",          _SIZES,                _NODES),
    _row("kubernetes","JOB_COMPLETION_INDEX", _WORLD,          "",                    "",                    ""),
)
# fmt: on

MPI_LAUNCHERS = frozenset({"openmpi", "mvapich2", "mpi", "jsrun", "flux"})
# Those that start every rank as a process of their own, with an id of the job that all ranks know.
_TASK_LAUNCHERS = MPI_LAUNCHERS | {"slurm", "horovod"}

# The variables that hold a rank; and those that together tell one world's place from another's. Of Slurm's none:
# a batch script has them too.
RANK_NAMES: tuple[str, ...] = tuple(dict.fromkeys(row.rank for row in ROWS if row.launcher != "slurm"))
PLACE_NAMES: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *RANK_NAMES,
            *(name for row in ROWS if row.launcher != "slurm" for name in (*row.world_size, *row.local_rank)),
            *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "PMIX_NAMESPACE"),
        ]
    )
)


@dataclass(frozen=True)
class Place:
    """Where a process stands in its world, and which row of the table said so."""

    rank: int
    world_size: int
    local_rank: int | None
    node_rank: int | None
    local_world_size: int | None
    launcher: str
    world_known: bool = True

    @property
    def is_alone(self) -> bool:
        """True for a world of one that nobody launched: setting RANK=0 and WORLD_SIZE=1 makes no job."""
        return self.world_known and self.world_size == 1 and self.launcher in _BY_HAND

    @property
    def is_by_hand(self) -> bool:
        """True where no launcher that we know started the ranks: a script, a notebook, a framework did."""
        return self.launcher in _BY_HAND


_BY_HAND = frozenset({"explicit", "torch", "env", "local"})


def first(env: Env, names: Iterable[str]) -> str | None:
    """The first of these variables that is set and not empty."""
    return next((env[name] for name in names if env.get(name)), None)


def number(text: str | None) -> int | None:
    """A whole number ≥ 0 in ASCII digits; anything else is None."""
    if text is None:
        return None
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None


def slurm_step(env: Env) -> int | None:
    """The number of the srun step that this process runs in; None in a batch script or an interactive shell."""
    step = number(first(env, ("SLURM_STEP_ID", "SLURM_STEPID")))
    return step if step is not None and step < SLURM_FIRST_RESERVED_STEP else None


def slurm_starts_tasks(env: Env, pid: int) -> bool:
    """Whether srun started this process as a task, so that SLURM_PROCID is its rank.

    A batch script has SLURM_PROCID=0 too, and its SLURM_NTASKS is a wish. mpirun starts its daemons by srun, whose
    numbers the ranks inherit. In a step of one task (`srun --pty bash`) anything may run, many times: only the
    task itself counts.
    """
    tasks = number(first(env, ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")))
    if slurm_step(env) is None or tasks is None:
        return False
    if first(env, ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "HOROVOD_RANK")) is not None:
        return False
    if env.get("PMI_RANK") and (env["PMI_RANK"], number(env.get("PMI_SIZE"))) != (env.get("SLURM_PROCID"), tasks):
        return False
    return tasks > 1 or number(env.get("SLURM_TASK_PID")) == pid


def find_place(env: Env, pid: int) -> tuple[Place | None, tuple[str, ...]]:
    """This process's place by the table, and what was wrong with the rows passed over on the way."""
    problems: list[str] = []
    place: Place | None = None
    for row in ROWS:
        if place is not None and row.launcher not in _TASK_LAUNCHERS:
            continue
        if not env.get(row.rank) or (row.needs and first(env, row.needs) is None):
            continue
        if row.launcher == "slurm" and not slurm_starts_tasks(env, pid):
            continue
        found = _PLACES.get(row.launcher, _plain_place)(row, env)
        if isinstance(found, str):
            problems += [found] if place is None and found not in problems else []
        elif place is None:
            place = found
            if not place.is_by_hand:
                break
        elif (found.rank, found.world_size) == (place.rank, place.world_size):
            # A script that copies: RANK=$SLURM_PROCID. Slurm started it all the same.
            place = _merged(place, found)
            break
    return place, tuple(problems)


def _merged(place: Place, started: Place) -> Place:
    """The place as told by hand, with the launcher that really started it, and what only that one tells."""
    return replace(
        place,
        launcher=started.launcher,
        local_rank=started.local_rank if place.local_rank is None else place.local_rank,
        node_rank=started.node_rank if place.node_rank is None else place.node_rank,
        local_world_size=started.local_world_size if place.local_world_size is None else place.local_world_size,
    )


def _plain_place(row: Row, env: Env) -> Place | str:
    """The place that this row tells, or what is wrong with it."""
    rank = number(env[row.rank])
    if rank is None:
        return f"{row.rank}={env[row.rank]!r} is not a rank (a whole number ≥ 0): ignored"
    return _checked(row, env, rank, number(first(env, row.world_size)))


def _open_world_place(row: Row, env: Env) -> Place | str:
    """As the plain one, where the world's size need not be known: then it is taken to end at this rank."""
    rank = number(env[row.rank])
    if rank is None or number(first(env, row.world_size)) is not None:
        return _plain_place(row, env)
    place = _checked(row, env, rank, rank + 1)
    return replace(place, world_known=False) if isinstance(place, Place) else place


def _local_place(row: Row, env: Env) -> Place | str:
    """LOCAL_RANK with NODE_RANK and the processes of a node, as Lightning and hand-written scripts set them.

    On node 0 the local rank is the global rank. On another one the processes of a node must be known.
    """
    local, node = number(env["LOCAL_RANK"]), number(first(env, row.node_rank)) or 0
    per_node, world = number(first(env, row.local_world_size)), number(env.get("WORLD_SIZE"))
    nodes = number(first(env, ("NNODES", "NUM_NODES", "GROUP_WORLD_SIZE", "CROSS_SIZE")))
    if local is None:
        return f"LOCAL_RANK={env['LOCAL_RANK']!r} is not a rank (a whole number ≥ 0): ignored"
    if per_node is None and world is not None and nodes and world % nodes == 0:
        per_node = world // nodes
    if world is None and per_node is not None:
        world = per_node * (nodes or node + 1)
    if node and per_node is None:
        return "LOCAL_RANK and NODE_RANK do not tell the rank without LOCAL_WORLD_SIZE: set RANK, or pass rank="
    return _checked(row, env, node * (per_node or 0) + local, world)


def _checked(row: Row, env: Env, rank: int, world: int | None) -> Place | str:
    if world is None or world < 1:
        return f"{row.rank}={env[row.rank]} without a valid {row.world_size[0]}: ignored"
    if world > MAX_WORLD_SIZE:
        return f"a world of {world:,} (from {row.world_size[0]}) is larger than {MAX_WORLD_SIZE:,}: ignored"
    if rank >= world:
        return f"rank {rank} (from {row.rank}) is outside a world of {world} (from {row.world_size[0]}): ignored"
    return Place(
        rank=rank,
        world_size=world,
        local_rank=number(first(env, row.local_rank)),
        node_rank=number(first(env, row.node_rank)),
        local_world_size=number(first(env, row.local_world_size)),
        launcher=row.launcher,
    )


_PLACES: Mapping[str, Callable[[Row, Env], Place | str]] = {
    "explicit": _open_world_place,
    "local": _local_place,
    "kubernetes": _open_world_place,
}


def is_loopback(address: str) -> bool:
    """Whether this MASTER_ADDR can only be reached from its own host."""
    return address in {"localhost", "::1", "[::1]", "0.0.0.0"} or address.startswith("127.")


def is_one_host(env: Env, place: Place) -> bool:
    """Whether all ranks of this world run on this host, as far as the environment tells."""
    if place.local_world_size is not None:
        return place.local_world_size == place.world_size
    if place.launcher == "slurm":
        return number(first(env, ("SLURM_STEP_NUM_NODES", "SLURM_NNODES"))) == 1
    address = env.get("MASTER_ADDR")
    return is_loopback(address) if address else place.launcher in {"env", "local", "explicit", "torch"}


def torchrun_id(env: Env) -> str | None:
    """torchrun's --rdzv-id, if somebody or `--standalone` gave one."""
    value = env.get("TORCHELASTIC_RUN_ID", "")
    return value if value not in ("", TORCHRUN_NO_ID) else None


def slurm_job(env: Env) -> tuple[str, ...] | None:
    """The Slurm job: cluster, array, job. A requeue keeps all of them."""
    job = first(env, ("SLURM_JOB_ID", "SLURM_JOBID"))
    if job is None:
        return None
    array = (env.get(name, "") for name in ("SLURM_CLUSTER_NAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"))
    return (*array, job)


def mpi_job(env: Env) -> str | None:
    """What PMIx, Open MPI 4, Flux or jsrun call this job: the same for all its ranks, new for each mpirun."""
    return first(env, ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "FLUX_JOB_ID", "JSM_NAMESPACE_ID"))


def kubernetes_job(env: Env) -> tuple[str, str] | None:
    """The Kubernetes job's name and uid, "" for what is not told.

    The pods of an Indexed Job have the host name NAME-INDEX.
    """
    index, host = env.get("JOB_COMPLETION_INDEX", ""), env.get("HOSTNAME", "")
    name, uid = env.get("ALLRANKS_JOB_NAME", ""), first(env, ("ALLRANKS_JOB_UID", "JOB_UID")) or ""
    if not name and (index or uid):  # alone, JOB_NAME may be Jenkins's
        name = env.get("JOB_NAME", "")
    if not name and index and host.endswith(f"-{index}"):
        name = host[: -len(index) - 1]
    return (name, uid) if name or uid else None


# New for each life of the same job: an elastic restart, a requeue, a restarted JobSet.
RESTART_COUNTS: tuple[str, ...] = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT", "JOBSET_RESTART_ATTEMPT")


def restarts(env: Env) -> tuple[str, ...]:
    """How often each layer has started this job again, 0 where it does not say."""
    return tuple(env.get(name) or "0" for name in RESTART_COUNTS)
