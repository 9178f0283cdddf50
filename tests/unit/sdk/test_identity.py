"""Who a process is, by table: environments as the launchers set them, processes as they start them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st

from allranks import facts as facts_module
from allranks.facts import Dist, Facts, Process, dist_agree, dist_probe, gather_facts
from allranks.identity import IdentityError, identify, random_id, resolve, short_hash
from allranks.launchers import PLACE_NAMES, find_place
from allranks.names import run_name
from allranks.parents import PARENT_VARIABLE, WRAPPER_VARIABLE, export_parent, parse_parent
from allranks_bus.errors import AllranksError

PID = 500
AGENT = Process(400, 40_000, ("python", "torchrun", "train.py"))
SHELL = Process(300, 30_000, ("bash",))


def tokens() -> Callable[[], str]:
    """A maker of run ids that nobody has had before: token0, token1 …"""
    count = itertools.count()
    return lambda: f"token{next(count)}"


def facts(
    env: Mapping[str, str] | None = None,
    *,
    pid: int = PID,
    ancestors: tuple[Process, ...] = (AGENT, SHELL),
    boot_id: str = "boot-a",
    mp_parent: int | None = None,
    main_child: bool = False,
    forked: bool = False,
) -> Facts:
    """A process on a host that was exec'd with `env`, `pid` ticks after its launcher."""
    place = {name: value for name, value in (env or {}).items() if name in PLACE_NAMES}
    me = Process(pid, 40_000 + pid, ("python", "train.py"), place)
    return Facts(boot_id, "host-a", me, ancestors, 1, 1000, forked, mp_parent, main_child)


def torchrun(rank: int, world: int = 4, local_world: int = 4, **more: str) -> dict[str, str]:
    """The environment that torchrun gives a rank."""
    env = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % local_world),
        "GROUP_RANK": str(rank // local_world),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": "127.0.0.1" if world == local_world else "node1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    return {**env, **more}


def srun(rank: int, tasks: int = 4, **more: str) -> dict[str, str]:
    """The environment of a task of an srun step of two nodes."""
    env = {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % 2),
        "SLURM_NODEID": str(rank // 2),
        "SLURM_NTASKS": "8",
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NUM_NODES": "2",
    }
    return {**env, **more}


SBATCH = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "1"}
OMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-host-1234@1",
}

# environment → (rank, world size, local rank, node rank, launcher); None: it tells no place
PLACES: dict[str, tuple[dict[str, str], tuple[int, int, int | None, int | None, str] | None]] = {
    "nothing": ({}, None),
    "torchrun": (torchrun(5, 8, 4), (5, 8, 1, 1, "torchrun")),
    "torchrun of one": (torchrun(0, 1, 1), (0, 1, 0, 0, "torchrun")),
    "torchrun below srun": (srun(1) | torchrun(5, 8, 4), (5, 8, 1, 1, "torchrun")),
    "deepspeed": (
        {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_SIZE": "2", "CROSS_RANK": "1", "CROSS_SIZE": "2"},
        (3, 4, 1, 1, "deepspeed"),
    ),
    "kubeflow": ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0"}, (1, 2, None, None, "env")),
    "allranks": ({"ALLRANKS_RANK": "2", "ALLRANKS_WORLD_SIZE": "4", "RANK": "1"}, (2, 4, None, None, "explicit")),
    "srun": (srun(3), (3, 4, 1, 1, "slurm")),
    "srun, old names": (
        {"SLURM_JOBID": "1", "SLURM_STEPID": "2", "SLURM_PROCID": "1", "SLURM_NPROCS": "2"},
        (1, 2, None, None, "slurm"),
    ),
    "sbatch script": (SBATCH, None),
    "sbatch script, new Slurm": (SBATCH | {"SLURM_STEP_ID": "4294967291"}, None),
    "salloc's interactive step": (srun(0, 1, SLURM_STEP_ID="4294967290"), None),
    "srun --pty bash": (srun(0, 1, SLURM_TASK_PID="17"), None),
    "srun of one task": (srun(0, 1, SLURM_TASK_PID=str(PID)), (0, 1, 0, 0, "slurm")),
    "srun with pmi2": (srun(3, PMI_RANK="3", PMI_SIZE="4"), (3, 4, 1, 1, "slurm")),
    "copied from srun": (srun(3, RANK="3", WORLD_SIZE="4"), (3, 4, 1, 1, "slurm")),
    "copied from mpirun": (OMPI | {"RANK": "3", "WORLD_SIZE": "4"}, (3, 4, 1, None, "openmpi")),
    "mpirun": (OMPI, (3, 4, 1, None, "openmpi")),
    "mpirun whose daemons srun started": (srun(1, 2) | OMPI, (3, 4, 1, None, "openmpi")),
    "hydra whose proxies srun started": (srun(1, 2, PMI_RANK="5", PMI_SIZE="8"), (5, 8, None, None, "mpi")),
    "mpich": (
        {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        (1, 2, 1, None, "mpi"),
    ),
    "mvapich2": (
        {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_RANK": "0"},
        (1, 2, 0, None, "mvapich2"),
    ),
    "horovod": (
        {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_CROSS_RANK": "1"},
        (1, 2, 0, 1, "horovod"),
    ),
    "flux": ({"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2", "FLUX_TASK_LOCAL_ID": "1"}, (1, 2, 1, None, "flux")),
    "jsrun": ({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"}, (1, 2, None, None, "jsrun")),
    "lightning": ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, (1, 2, 1, 0, "local")),
    "node rank and size": (
        {"LOCAL_RANK": "1", "NODE_RANK": "2", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "12"},
        (9, 12, 1, 2, "local"),
    ),
    "node rank and nodes": (
        {"LOCAL_RANK": "1", "NODE_RANK": "1", "NNODES": "2", "WORLD_SIZE": "4"},
        (3, 4, 1, 1, "local"),
    ),
    "node rank, no world": ({"LOCAL_RANK": "0", "NODE_RANK": "1", "NPROC_PER_NODE": "2"}, (2, 4, 0, 1, "local")),
    "indexed job": ({"JOB_COMPLETION_INDEX": "2"}, (2, 3, None, None, "kubernetes")),
    "indexed job with a world": (
        {"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "8"},
        (2, 8, None, None, "kubernetes"),
    ),
    "torchrun in an indexed job": ({"JOB_COMPLETION_INDEX": "1"} | torchrun(1), (1, 4, 1, 0, "torchrun")),
}

# environment → the place that is still found, and a word of the problem told
BROKEN: dict[str, tuple[dict[str, str], tuple[int, int] | None, str]] = {
    "a word": ({"RANK": "abc", "WORLD_SIZE": "2"}, None, "RANK='abc'"),
    "negative": ({"RANK": "-1", "WORLD_SIZE": "2"}, None, "RANK='-1'"),
    "immense": ({"RANK": "2", "WORLD_SIZE": "131073"}, None, "larger than 131,072"),
    "outside": ({"RANK": "2", "WORLD_SIZE": "2"}, None, "outside a world of 2"),
    "no world": ({"RANK": "1"}, None, "WORLD_SIZE"),
    "empty world": ({"RANK": "0", "WORLD_SIZE": "0"}, None, "WORLD_SIZE"),
    "other digits": ({"RANK": "٣", "WORLD_SIZE": "4"}, None, "RANK"),
    "huge": ({"RANK": "9" * 5000, "WORLD_SIZE": "4"}, None, "RANK"),
    "falls to slurm": (srun(1, RANK="abc", WORLD_SIZE="4"), (1, 4), "RANK='abc'"),
    "falls to local": ({"RANK": "x", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (1, 2), "RANK='x'"),
    "node unknown": ({"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "4"}, None, "LOCAL_WORLD_SIZE"),
    "bad local": ({"LOCAL_RANK": "?", "WORLD_SIZE": "4"}, None, "LOCAL_RANK"),
    "bad index": ({"JOB_COMPLETION_INDEX": "?"}, None, "JOB_COMPLETION_INDEX"),
    "bad own": ({"ALLRANKS_RANK": "a"}, None, "ALLRANKS_RANK"),
}


@pytest.mark.parametrize("row", PLACES)
def test_place_by_launcher(row: str) -> None:
    env, expected = PLACES[row]
    place, problems = find_place(env, PID)
    told = place and (place.rank, place.world_size, place.local_rank, place.node_rank, place.launcher)
    assert told == expected
    assert problems == ()


@pytest.mark.parametrize("row", BROKEN)
def test_a_broken_environment_is_a_problem_and_not_an_error(row: str) -> None:
    env, place, word = BROKEN[row]
    who = resolve(env, facts=facts(env), new_token=tokens())
    assert (who.rank, who.world_size) == (place or (0, 1))
    assert word in " ".join(who.problems)


@pytest.mark.parametrize("rank", ["2", "-1", "abc"])
def test_a_rank_that_its_world_does_not_have_stays_out_of_the_worlds_run_and_says_so(rank: str) -> None:
    env = {"RANK": rank, "WORLD_SIZE": "2", "ALLRANKS_RUN_ID": "theirs"}
    who = resolve(env, facts=facts(env), new_token=tokens())
    assert who.run != "theirs"
    assert who.problems[-1] == "so it logs into a run of its own, not into that of ALLRANKS_RUN_ID"
    assert resolve(env, facts=facts(env), new_token=tokens(), id="mine").run == "mine"


@pytest.mark.parametrize("env", [{"RANK": "1"}, {"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "4"}, {}])
def test_a_rank_that_is_merely_not_known_leaves_the_run_as_it_is_named(env: dict[str, str]) -> None:
    env = {**env, "ALLRANKS_RUN_ID": "theirs"}
    assert resolve(env, facts=facts(env), new_token=tokens()).run == "theirs"


def test_what_the_environment_leaves_out_is_no_problem_where_torch_tells_it() -> None:
    env = {"LOCAL_RANK": "1", "MASTER_PORT": "29500"}  # as Lightning's forked ranks have it
    who = resolve(env, facts=facts(env), new_token=tokens(), dist=Dist(1, 2))
    assert (who.rank, who.world_size) == (1, 2)
    assert who.problems == ()


Case = tuple[Mapping[str, str], Facts]


def case(env: Mapping[str, str], **more: object) -> Case:
    return env, facts(env, **more)  # type: ignore[arg-type]  # one keyword each of facts()


WRAPPED = torchrun(1)
OTHER_AGENT = Process(401, 41_000, ("python", "torchrun", "train.py"))
OTHER_COMMAND = Process(402, 42_000, ("python", "torchrun", "other.py"))
KUBE = {"JOB_COMPLETION_INDEX": "0", "HOSTNAME": "train-0", "WORLD_SIZE": "2", "ALLRANKS_JOB_UID": "u1"}
MANUAL = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}

# two ranks → whether they are in the same run, and in the same launch
PAIRS: dict[str, tuple[Case, Case, bool, bool]] = {
    "torchrun, one host": (case(torchrun(0)), case(torchrun(1), pid=501), True, True),
    "torchrun behind a wrapper": (
        case(torchrun(0)),
        case(WRAPPED, pid=501, ancestors=(Process(450, 45_000, ("bash", "-c"), WRAPPED), AGENT, SHELL)),
        True,
        True,
    ),
    "torchrun, elastic restart": (
        case(torchrun(0)),
        case(torchrun(0, TORCHELASTIC_RESTART_COUNT="1"), pid=501),
        True,
        False,
    ),
    "torchrun twice, same address": (
        case(torchrun(0)),
        case(torchrun(0), ancestors=(OTHER_AGENT, SHELL)),
        False,
        False,
    ),
    "torchrun on two hosts": (
        case(torchrun(0, 8, 4)),
        case(torchrun(4, 8, 4), boot_id="boot-b", ancestors=(OTHER_AGENT,)),
        True,
        True,
    ),
    "torchrun with an id, two hosts": (
        case(torchrun(0, 8, 4, TORCHELASTIC_RUN_ID="exp")),
        case(torchrun(4, 8, 4, TORCHELASTIC_RUN_ID="exp"), boot_id="boot-b"),
        True,
        True,
    ),
    "torchrun with an id, twice": (
        case(torchrun(0, TORCHELASTIC_RUN_ID="exp")),
        case(torchrun(0, TORCHELASTIC_RUN_ID="exp"), ancestors=(OTHER_AGENT,)),
        True,
        False,
    ),
    "torchrun with two ids": (
        case(torchrun(0, TORCHELASTIC_RUN_ID="a")),
        case(torchrun(0, TORCHELASTIC_RUN_ID="b")),
        False,
        False,
    ),
    "srun, two nodes": (case(srun(0)), case(srun(3), boot_id="boot-b"), True, True),
    "srun, two steps": (case(srun(0)), case(srun(0, SLURM_STEP_ID="1")), False, False),
    "srun, two jobs": (case(srun(0)), case(srun(0, SLURM_JOB_ID="78")), False, False),
    "srun, two tasks of an array": (
        case(srun(0, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="1")),
        case(srun(0, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="2")),
        False,
        False,
    ),
    "srun, requeued": (case(srun(0)), case(srun(0, SLURM_RESTART_COUNT="1"), boot_id="boot-b"), True, False),
    "srun, and a script that copies the rank": (
        case(srun(0)),
        (srun(1, RANK="1", WORLD_SIZE="4", MASTER_ADDR="node1", MASTER_PORT="1"), facts(srun(1), pid=501)),
        True,
        True,
    ),
    "sbatch with torchrun, requeued": (
        case(SBATCH | torchrun(0)),
        case(SBATCH | torchrun(0, SLURM_RESTART_COUNT="1"), boot_id="boot-b", ancestors=(OTHER_AGENT,)),
        True,
        False,
    ),
    "sbatch with two torchruns": (
        case(SBATCH | torchrun(0)),
        case(SBATCH | torchrun(0), ancestors=(OTHER_COMMAND, SHELL)),
        False,
        False,
    ),
    "srun starts torchrun on each node": (
        case(srun(0, 2) | torchrun(0, 8, 4)),
        case(srun(1, 2) | torchrun(4, 8, 4), boot_id="boot-b", ancestors=(OTHER_AGENT,)),
        True,
        True,
    ),
    "mpirun, two nodes": (case(OMPI), case(OMPI | {"OMPI_COMM_WORLD_RANK": "0"}, boot_id="boot-b"), True, True),
    "mpirun twice": (case(OMPI), case(OMPI | {"PMIX_NAMESPACE": "prterun-host-1300@1"}), False, False),
    "mpirun in Slurm: here, and there below a daemon": (
        case(SBATCH | OMPI),
        case(srun(0, 2) | OMPI, boot_id="boot-b"),
        True,
        True,
    ),
    "indexed job": (
        case(KUBE),
        case(KUBE | {"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "train-1"}, boot_id="boot-b"),
        True,
        True,
    ),
    "indexed job, made anew": (case(KUBE), case(KUBE | {"ALLRANKS_JOB_UID": "u2"}), False, False),
    "indexed job, retried": (case(KUBE), case(KUBE | {"JOBSET_RESTART_ATTEMPT": "1"}), True, False),
    "indexed job of torchruns of their own": (
        case(KUBE | torchrun(0)),
        case(KUBE | torchrun(0, JOB_COMPLETION_INDEX="1"), boot_id="boot-b"),
        False,
        False,
    ),
    "by hand, one host": (case(MANUAL), case(MANUAL | {"RANK": "1"}, pid=501), True, True),
    "by hand, two worlds side by side": (case(MANUAL), case(MANUAL | {"MASTER_PORT": "2"}), False, False),
    "by hand, two parents": (case(MANUAL), case(MANUAL, ancestors=(OTHER_AGENT,)), False, False),
    "by hand, another pid of another boot": (case(MANUAL), case(MANUAL, boot_id="boot-b"), False, False),
    "by hand, two hosts": (
        case(MANUAL | {"MASTER_ADDR": "node1"}),
        case(MANUAL | {"MASTER_ADDR": "node1", "RANK": "1"}, boot_id="boot-b"),
        True,
        True,
    ),
    "mp.spawn, rank set in the function": (
        (MANUAL, facts({}, mp_parent=400)),
        (MANUAL | {"RANK": "1"}, facts({}, pid=501, mp_parent=400)),
        True,
        True,
    ),
    "forked, rank set in the child": (
        (MANUAL, facts({}, forked=True)),
        (MANUAL | {"RANK": "1"}, facts({}, pid=501, forked=True)),
        True,
        True,
    ),
    "lightning: main process and the one it starts": (
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "7"}, facts({})),
        case(
            {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "7"},
            pid=501,
            ancestors=(facts({}).me, AGENT),
        ),
        True,
        True,
    ),
    "two lone processes": (case({}), case({}, pid=501), False, False),
    "two lone processes of an sbatch script": (case(SBATCH), case(SBATCH, pid=501), False, False),
    "RANK=0 of a world of one, twice": (
        case({"RANK": "0", "WORLD_SIZE": "1"}),
        case({"RANK": "0", "WORLD_SIZE": "1"}, pid=501),
        False,
        False,
    ),
    "srun of one task, requeued": (
        case(srun(0, 1, SLURM_TASK_PID=str(PID))),
        case(srun(0, 1, SLURM_TASK_PID="501", SLURM_RESTART_COUNT="1"), pid=501, boot_id="boot-b"),
        True,
        False,
    ),
    "one id, two lone processes": (
        case({"ALLRANKS_RUN_ID": "exp"}),
        case({"ALLRANKS_RUN_ID": "exp"}, pid=501),
        True,
        False,
    ),
    "one id, ranks of one torchrun": (
        case(torchrun(0, ALLRANKS_RUN_ID="exp")),
        case(torchrun(1, ALLRANKS_RUN_ID="exp")),
        True,
        True,
    ),
    "one id, two torchruns": (
        case(torchrun(0, ALLRANKS_RUN_ID="exp")),
        case(torchrun(0, ALLRANKS_RUN_ID="exp"), ancestors=(OTHER_AGENT,)),
        True,
        False,
    ),
}


@pytest.mark.parametrize("row", PAIRS)
def test_who_shares_a_run_and_a_launch(row: str) -> None:
    (env, process), (other_env, other_process), same_run, same_launch = PAIRS[row]
    new_token = tokens()
    one = resolve(env, facts=process, new_token=new_token)
    other = resolve(other_env, facts=other_process, new_token=new_token)
    assert (one.run == other.run, one.launch == other.launch) == (same_run, same_launch)
    assert one.name == other.name or not same_run


@pytest.mark.parametrize(
    ("env", "weak", "crowded"),
    [
        (torchrun(0), False, False),
        (torchrun(0, 8, 4), True, False),
        (srun(0), False, False),
        (OMPI, False, False),
        (MANUAL, False, True),
        (MANUAL | {"MASTER_ADDR": "node-1"}, True, False),
        (KUBE, False, False),
        ({"JOB_COMPLETION_INDEX": "0", "HOSTNAME": "train-0", "WORLD_SIZE": "2"}, True, False),
        ({}, False, False),
    ],
)
def test_facts_that_another_launch_may_share_are_called_so(env: dict[str, str], weak: bool, crowded: bool) -> None:
    who = resolve(env, facts=facts(env), new_token=tokens())
    assert (who.weak, who.crowded) == (weak, crowded)


@pytest.mark.parametrize("env", [torchrun(1), MANUAL, srun(1)])
def test_a_further_run_of_the_same_ranks_is_another_run(env: dict[str, str]) -> None:
    runs = [resolve(env, facts=facts(env), new_token=tokens(), turn=turn) for turn in (0, 1, 1, 2)]
    assert runs[1].run == runs[2].run
    assert len({who.run for who in runs}) == len({who.launch for who in runs}) == 3


def test_a_rank_that_is_asked_again_gives_the_same_answer_also_after_a_restart() -> None:
    env = torchrun(1, TORCHELASTIC_RESTART_COUNT="1")
    first = resolve(env, facts=facts(env), new_token=tokens())
    env[PARENT_VARIABLE] = export_parent(first, facts(env))
    again = resolve(env, facts=facts(env), new_token=tokens())
    assert (again.run, again.launch, again.role) == (first.run, first.launch, "rank")


def test_launches_that_look_alike_differ_by_their_number_also_under_one_id() -> None:
    first, second = (
        resolve(MANUAL, facts=facts(MANUAL), new_token=tokens(), id="mine", launch_number=number) for number in (0, 1)
    )
    assert first.run == second.run == "mine"
    assert first.launch != second.launch


def test_a_process_of_its_own_is_rank_0_of_a_world_of_one() -> None:
    who = resolve({}, facts=facts(), new_token=tokens())
    assert (who.run, who.rank, who.world_size, who.launcher, who.role) == ("token0", 0, 1, "single", "rank")


def test_arguments_stand_above_torch_and_environment() -> None:
    who = resolve(torchrun(1), facts=facts(), new_token=tokens(), rank=2, world_size=8, id="mine", dist=Dist(3, 4))
    assert (who.run, who.rank, who.world_size) == ("mine", 2, 8)


def test_torch_stands_above_the_environment() -> None:
    who = resolve(MANUAL, facts=facts(MANUAL), new_token=tokens(), dist=Dist(3, 4))
    assert (who.rank, who.world_size) == (3, 4)


def test_torch_alone_tells_the_place() -> None:
    who = resolve({}, facts=facts(), new_token=tokens(), dist=Dist(3, 4, "agreed", "l1"))
    assert (who.run, who.launch, who.rank, who.world_size, who.launcher) == ("agreed", "l1", 3, 4, "torch")


def test_an_id_stands_above_what_the_ranks_agreed_on_and_keeps_their_launch() -> None:
    who = resolve({}, facts=facts(), new_token=tokens(), id="mine", dist=Dist(0, 2, "agreed", "l1"))
    assert (who.run, who.launch) == ("mine", "l1")


def test_ranks_that_could_not_agree_go_by_their_launcher() -> None:
    who = resolve(torchrun(0), facts=facts(), new_token=tokens(), dist=Dist(0, 4))
    assert who.run == resolve(torchrun(0), facts=facts(), new_token=tokens()).run


def test_a_rank_without_a_world_ends_it() -> None:
    who = resolve({}, facts=facts(), new_token=tokens(), rank=3)
    assert (who.rank, who.world_size) == (3, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rank": -1},
        {"rank": True},
        {"rank": "1"},
        {"rank": 4, "world_size": 4},
        {"world_size": 0},
        {"world_size": 4},
        {"world_size": 2**17 + 1, "rank": 0},
        {"id": ""},
        {"id": "a/b"},
        {"id": "-a"},
        {"id": "a" * 129},
        {"id": "a\n"},
        {"id": 7},
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(arguments: dict[str, int | str]) -> None:
    with pytest.raises(IdentityError, match="expected") as caught:
        resolve({}, facts=facts(), new_token=tokens(), **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert isinstance(caught.value, AllranksError)
    assert next(iter(arguments)) in str(caught.value)


def test_a_wrong_id_in_the_environment_is_mended() -> None:
    who = resolve({"ALLRANKS_RUN_ID": "my run/1"}, facts=facts(), new_token=tokens())
    assert who.run == "my-run-1"
    assert "ALLRANKS_RUN_ID" in who.problems[0]


def test_project_group_and_name_come_from_argument_then_environment_then_default() -> None:
    env = {"ALLRANKS_PROJECT": "p", "ALLRANKS_GROUP": "g", "ALLRANKS_NAME": "n"}
    by_env = resolve(env, facts=facts(), new_token=tokens())
    by_argument = resolve(env, facts=facts(), new_token=tokens(), project="P", group="G", name="N")
    default = resolve({}, facts=facts(), new_token=tokens())
    assert (by_env.project, by_env.group, by_env.name) == ("p", "g", "n")
    assert (by_argument.project, by_argument.group, by_argument.name) == ("P", "G", "N")
    assert (default.project, default.group, default.name) == ("default", None, run_name("token0"))


# --- parents ---------------------------------------------------------------------------------------------------

PARENT_FACTS = facts({}, pid=400, ancestors=(SHELL,))
PARENT = resolve({}, facts=PARENT_FACTS, new_token=lambda: "parent")
EXPORT = {"ALLRANKS_PARENT_RUN": export_parent(PARENT, PARENT_FACTS)}
CHILD_ANCESTORS = (PARENT_FACTS.me, SHELL)


def child(env: Mapping[str, str], **more: object) -> tuple[str, str, int, str]:
    """Run, launch, rank and role of a process that the parent started with this environment beside its export."""
    options = {"ancestors": CHILD_ANCESTORS, **more}
    who = resolve({**env, **EXPORT}, facts=facts(env, **options), new_token=tokens())  # type: ignore[arg-type]
    return who.run, who.launch, who.rank, who.role


def test_a_rank_joins_the_parent_that_started_it() -> None:
    assert child(MANUAL | {"RANK": "1"}) == ("parent", PARENT.launch, 1, "rank")


def test_a_subprocess_without_a_place_is_a_run_of_its_own() -> None:
    assert child({})[0] == "token0"


def test_a_torchrun_below_the_parent_is_a_run_of_its_own() -> None:
    grandchild = child(torchrun(0), ancestors=(Process(450, 45_000), *CHILD_ANCESTORS))
    assert grandchild[0] not in ("parent", "token0")


def test_a_parent_of_another_boot_or_a_reused_pid_is_not_ours() -> None:
    assert child(MANUAL, boot_id="boot-b")[0] != "parent"
    assert child(MANUAL, ancestors=(Process(400, 1), SHELL))[0] != "parent"


def test_a_process_behind_a_wrapper_is_its_parents_child_too() -> None:
    parent = facts({**MANUAL, "RANK": "1"}, pid=400)
    export = {"ALLRANKS_PARENT_RUN": export_parent(replace(PARENT, rank=1, world_size=2), parent)}
    wrapper = Process(450, 45_000, ("bash",), parent.me.env)
    process = facts({**MANUAL, "RANK": "1"}, ancestors=(wrapper, parent.me, SHELL))
    who = resolve({**MANUAL, "RANK": "1", **export}, facts=process, new_token=tokens())
    assert (who.run, who.launch, who.rank, who.role) == ("parent", PARENT.launch, 1, "child")


def test_a_process_at_its_parents_own_place_is_its_child() -> None:
    assert child({"RANK": "0", "WORLD_SIZE": "1"}) == ("parent", PARENT.launch, 0, "child")


def test_a_child_at_its_parents_place_is_of_its_launch_also_after_a_restart() -> None:
    place = {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "1"}
    assert child(place) == ("parent", PARENT.launch, 0, "child")


def test_a_child_that_runs_the_main_module_again_gets_its_parents_run_whatever_it_asks_for() -> None:
    process = facts({}, ancestors=CHILD_ANCESTORS, mp_parent=400, main_child=True)
    who = resolve(EXPORT, facts=process, new_token=tokens(), id="other", rank=3, world_size=4)
    assert (who.run, who.launch, who.rank, who.world_size, who.role) == ("parent", PARENT.launch, 0, 1, "child")


def test_a_forkserver_child_finds_its_parent_beyond_the_server() -> None:
    server = Process(450, 45_000)
    process = facts({}, ancestors=(server, *CHILD_ANCESTORS), main_child=True)
    assert resolve(EXPORT, facts=process, new_token=tokens()).run == "parent"


def test_a_process_that_calls_again_with_a_place_stays_in_its_run() -> None:
    mine = facts({})
    export = {"ALLRANKS_PARENT_RUN": export_parent(PARENT, mine)}
    who = resolve({**MANUAL, **export}, facts=mine, new_token=tokens())
    assert (who.run, who.launch, who.rank, who.world_size, who.role) == ("parent", PARENT.launch, 0, 2, "rank")


def test_a_process_that_calls_again_without_a_place_starts_another_run() -> None:
    mine = facts({})
    export = {"ALLRANKS_PARENT_RUN": export_parent(PARENT, mine)}
    assert resolve(export, facts=mine, new_token=tokens()).run == "token0"


def test_the_parents_launch_has_a_next_life_after_an_elastic_restart() -> None:
    run, launch, _, _ = child(torchrun(1, TORCHELASTIC_RESTART_COUNT="1"))
    assert run == "parent"
    assert launch != PARENT.launch


# --- wrappers --------------------------------------------------------------------------------------------------

WRAPPER = {WRAPPER_VARIABLE: export_parent(PARENT, PARENT_FACTS)}
SCRIPT = Process(450, 45_000, ("sh", "train.sh"))


def wrapped(
    env: Mapping[str, str], below: tuple[Process, ...] = (), **more: object
) -> tuple[str, str, int, int, str]:
    """Run, launch, rank, world size and role of a process below the wrapper, and below these processes of its."""
    process = facts(env, ancestors=(*below, *CHILD_ANCESTORS))
    who = resolve({**env, **WRAPPER}, facts=process, new_token=tokens(), **more)  # type: ignore[arg-type]
    return who.run, who.launch, who.rank, who.world_size, who.role


@pytest.mark.parametrize("below", [(), (SCRIPT,)], ids=["the command", "below a script"])
def test_a_wrapped_program_is_the_rank_that_its_wrapper_began(below: tuple[Process, ...]) -> None:
    assert wrapped({}, below) == ("parent", PARENT.launch, 0, 1, "rank")


def test_a_wrapped_launcher_has_all_its_ranks_in_the_run() -> None:
    assert wrapped(torchrun(3), (AGENT,)) == ("parent", PARENT.launch, 3, 4, "rank")
    run, launch, *_ = wrapped(torchrun(3, TORCHELASTIC_RESTART_COUNT="1"), (AGENT,))
    assert run == "parent"
    assert launch != PARENT.launch


def test_a_wrapper_of_one_node_does_not_tear_a_world_apart() -> None:
    assert wrapped(torchrun(3, 8, 4), (AGENT,))[0] != "parent"


def test_a_wrapper_in_the_place_of_a_rank_is_in_its_world() -> None:
    at = replace(PARENT, rank=3, world_size=8)
    process = facts(torchrun(3, 8, 4), ancestors=CHILD_ANCESTORS)
    env = {**torchrun(3, 8, 4), WRAPPER_VARIABLE: export_parent(at, PARENT_FACTS)}
    who = resolve(env, facts=process, new_token=tokens())
    assert (who.run, who.launch, who.rank, who.world_size, who.role) == ("parent", PARENT.launch, 3, 8, "rank")


def test_a_wrapped_program_that_asks_again_is_who_it_was() -> None:
    mine = facts({}, ancestors=CHILD_ANCESTORS)
    first = resolve(WRAPPER, facts=mine, new_token=tokens())
    env = {**WRAPPER, PARENT_VARIABLE: export_parent(first, mine)}
    assert resolve(env, facts=mine, new_token=tokens()) == first


def test_what_a_wrapped_program_starts_follows_its_own_rules() -> None:
    """A sweep in a wrapper is many runs, and the ranks of its command join the command."""
    driver = facts({}, pid=460, ancestors=CHILD_ANCESTORS)
    env = {**WRAPPER, PARENT_VARIABLE: export_parent(PARENT, driver)}
    trial = facts({}, ancestors=(driver.me, *CHILD_ANCESTORS))
    assert resolve(env, facts=trial, new_token=tokens()).run == "token0"
    rank = facts(MANUAL | {"RANK": "1"}, ancestors=(driver.me, *CHILD_ANCESTORS))
    assert resolve({**MANUAL, **env, "RANK": "1"}, facts=rank, new_token=tokens()).rank == 1


def test_an_id_of_its_own_outweighs_the_wrapper() -> None:
    assert wrapped({}, id="mine")[0] == "mine"
    assert wrapped({"ALLRANKS_RUN_ID": "mine"})[0] == "mine"


def test_a_second_run_of_a_wrapped_program_is_its_own() -> None:
    assert wrapped({}, turn=1)[0] == "token0"


def test_a_wrapper_that_is_no_ancestor_is_nobodys() -> None:
    for ancestors in ((), (AGENT, SHELL), (Process(400, 1), SHELL)):
        assert resolve(WRAPPER, facts=facts({}, ancestors=ancestors), new_token=tokens()).run == "token0"
    elsewhere = facts({}, ancestors=CHILD_ANCESTORS, boot_id="boot-b")
    assert resolve(WRAPPER, facts=elsewhere, new_token=tokens()).run == "token0"


def test_an_export_reads_back() -> None:
    parent = parse_parent(EXPORT["ALLRANKS_PARENT_RUN"])
    assert parent is not None
    assert (parent.run, parent.launch, parent.boot_id) == ("parent", PARENT.launch, "boot-a")
    assert (parent.pid, parent.start, parent.rank, parent.world_size) == (400, 40_400, 0, 1)


def test_an_export_without_a_place_reads_too() -> None:
    parent = parse_parent("run:launch:boot:1:123456789012345")
    assert parent is not None
    assert (parent.pid, parent.start, parent.rank) == (1, 123456789012345, None)


@given(st.text() | st.lists(st.text(alphabet="a1-", max_size=3), max_size=9).map(":".join))
def test_whatever_stands_in_the_parents_variable_does_no_harm(text: str) -> None:
    parent = parse_parent(text)
    assert parent is None or parent.pid >= 0


NAMES = st.sampled_from([*PLACE_NAMES, *srun(0), *KUBE, "ALLRANKS_RUN_ID", "ALLRANKS_PARENT_RUN", "SLURM_TASK_PID"])
VALUES = st.sampled_from(["", "0", "1", "3", "none", "127.0.0.1", "x"]) | st.text(max_size=5)


@given(st.dictionaries(NAMES, VALUES), st.booleans(), st.booleans())
def test_no_environment_can_raise_and_every_id_is_valid(env: dict[str, str], forked: bool, main_child: bool) -> None:
    who = resolve(env, facts=facts(env, forked=forked, main_child=main_child), new_token=tokens())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", who.run)
    assert who.launch
    assert ":" not in who.launch
    assert 0 <= who.rank < who.world_size


@given(st.lists(st.text()))
def test_a_hash_is_short_and_valid(parts: list[str]) -> None:
    assert re.fullmatch(r"[a-z2-7]{10}", short_hash(*parts))


def test_random_ids_differ() -> None:
    assert random_id() != random_id()


@given(st.text(alphabet="abcdef0123456789", min_size=1))
def test_a_name_is_readable_and_always_the_same(run_id: str) -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{1,2}", run_name(run_id))
    assert run_name(run_id) == run_name(run_id)


# --- the edge --------------------------------------------------------------------------------------------------


def test_the_facts_of_this_process() -> None:
    seen = gather_facts()
    assert (seen.pid, seen.ppid) == (os.getpid(), os.getppid())
    assert seen.me.start > 0
    assert all(before.start >= after.start for before, after in itertools.pairwise((seen.me, *seen.ancestors[:1])))
    assert not seen.main_child


SHOW = "from allranks.identity import identify; who, _ = identify(); print(who.run, who.launch, who.rank)"


def show(**env: str) -> list[str]:
    """Run, launch and rank of a real process with this environment."""
    clean = {name: value for name, value in os.environ.items() if name not in (*PLACE_NAMES, *KUBE)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**clean, **env}, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_real_processes_of_one_parent_find_each_other() -> None:
    first, second = (show(**{**MANUAL, "RANK": rank}) for rank in "01")
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == ("0", "1")


def test_finding_out_loads_neither_torch_nor_multiprocessing() -> None:
    code = f"import sys; {SHOW}; sys.exit(any(m in sys.modules for m in ('torch', 'multiprocessing', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, stdout=subprocess.DEVNULL).returncode == 0


def test_without_a_process_group_torch_tells_nothing() -> None:
    assert not torch.distributed.is_initialized()
    assert dist_probe() is None
    assert dist_agree("run", "x") is None


def test_the_first_proposal_to_a_process_group_holds(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert dist_probe() == Dist(0, 1)
        assert dist_agree("run", "first") == "first"
        assert dist_agree("run", "second") == "first"
        assert dist_agree("launch", "other") == "other"
    finally:
        torch.distributed.destroy_process_group()


def test_a_forked_child_does_not_ask_its_parents_process_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "_inherited_group", None)
    for number in range(2):
        store = f"file://{tmp_path}/store-{number}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        try:
            # Its own later one it does.
            assert dist_probe() == Dist(0, 1)
            facts_module.forget_group()
            assert dist_probe() is None
            assert dist_agree("run", "mine") is None
        finally:
            torch.distributed.destroy_process_group()


def test_a_weak_identity_proposes_something_random(monkeypatch: pytest.MonkeyPatch) -> None:
    proposals: dict[str, str] = {}

    def accept(key: str, proposal: str) -> str:
        proposals[key] = proposal
        return proposal

    monkeypatch.setattr("allranks.identity.dist_probe", lambda: Dist(0, 8))
    monkeypatch.setattr("allranks.identity.dist_agree", accept)
    weak, strong = torchrun(0, 8, 4), srun(0, 8)
    runs = [identify(env)[0].run for env in (weak, weak, strong, strong)]
    assert runs[0] != runs[1]
    assert runs[2] == runs[3]
    assert set(proposals) == {"run", "launch/0/0/0"}
    assert proposals["run"] == runs[3]


# What a training script does: who am I at first, and who am I once the process group is up? (gloo cannot connect
# again after a restart while torchrun's store still holds the addresses of before, so the second life has none.)
TRAIN = """
import os
from allranks.identity import identify
import torch.distributed as dist
life = os.environ["TORCHELASTIC_RESTART_COUNT"]
found = [identify()[0]]
if life == "0":
    dist.init_process_group("gloo")
    found.append(identify()[0])
os.write(1, "".join(f"{life} {who.rank} {who.run} {who.launch}\\n" for who in found).encode())
if life == "0":
    dist.barrier()
    os._exit(1)
"""


RENDEZVOUS = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")  # any free port


def test_torchrun_with_wrappers_and_an_elastic_restart(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    worker = f"{sys.executable} {tmp_path}/train.py; exit $?"
    command = ["--nproc-per-node=2", "--max-restarts=1", *RENDEZVOUS, "--no-python", "bash", "-c", worker]
    clean = {name: value for name, value in os.environ.items() if name not in PLACE_NAMES}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command],
        env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    lives = sorted(f"{life} {rank}" for life, rank, _, _ in lines)
    assert lives == ["0 0", "0 0", "0 1", "0 1", "1 0", "1 1"]
    assert len({run for _, _, run, _ in lines}) == 1
    launches = {(life, launch) for life, _, _, launch in lines}
    assert len(launches) == len({launch for _, launch in launches}) == 2


# A script without a main guard's protection of its first lines, whose function takes its place by itself.
SPAWN = """
import multiprocessing, os, sys
from allranks.identity import identify
from allranks.parents import export_parent
who, facts = identify()
os.environ["ALLRANKS_PARENT_RUN"] = export_parent(who, facts)
os.write(1, f"top {who.run} {who.launch} {who.rank} {who.role}\\n".encode())
def work(rank):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    who, _ = identify()
    os.write(1, f"work {who.run} {who.launch} {who.rank} {who.role}\\n".encode())
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    [child.start() for child in children]
    [child.join() for child in children]
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessings_children_find_the_parents_run(method: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SPAWN)
    clean = {name: value for name, value in os.environ.items() if name not in (*PLACE_NAMES, *EXPORT)}
    command = [sys.executable, f"{tmp_path}/main.py", method]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len({(run, launch) for _, run, launch, _, _ in lines}) == 1
    assert sorted((rank, role) for where, _, _, rank, role in lines if where == "work") == [
        ("0", "rank"),
        ("1", "rank"),
    ]
    roles = [role for where, _, _, _, role in lines if where == "top"]
    assert roles[0] == "rank"
    assert set(roles[1:]) <= {"child"}


def test_a_launchs_facts_do_not_hold_its_rank() -> None:
    ranks = [resolve(torchrun(rank), facts=facts(torchrun(rank)), new_token=tokens()) for rank in range(4)]
    assert len({replace(who, rank=0, local_rank=0) for who in ranks}) == 1
