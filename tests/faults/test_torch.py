"""Trainings with torch in which one rank fails or gets stuck, while the others wait for it in a collective."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from tests.support import scenario
from tests.support.collector import CollectorProcess
from tests.support.ports import free_port
from tests.support.waiting import wait_until

_RUN = "torch"
_START_S = 90.0

_RAISING = """
import torch
import torch.distributed as dist
import allranks

dist.init_process_group("gloo")
run = allranks.init(project="faults")
for step in range(1000):
    loss = torch.ones(1)
    if run.rank == 1 and step == 30:
        raise ValueError("the loss is not a number")
    dist.all_reduce(loss)
    run.log({"loss": float(loss)}, step)
"""

# A worker that takes a lock twice; as one does that was forked while a thread of the training held it.
_DEADLOCKED = """
import threading, time
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset
import allranks

class Samples(Dataset):
    def __init__(self, rank):
        self.rank = rank

    def __len__(self):
        return 10_000

    def __getitem__(self, at):
        lock = threading.Lock()
        lock.acquire()
        if self.rank == 1 and at == 150:
            lock.acquire()
        time.sleep(0.03)
        return torch.ones(1)

dist.init_process_group("gloo")
run = allranks.init(project="faults")
loader = iter(DataLoader(Samples(run.rank), num_workers=1, batch_size=1))
for step in range(10_000):
    batch = next(loader)
    dist.all_reduce(batch)
    run.log({"loss": float(batch)}, step)
"""


def _line(program: str, text: str) -> int:
    (line,) = [number for number, line in enumerate(program.splitlines(), 1) if text in line]
    return line


def test_who_raises_under_torchrun_is_named_before_who_waits_for_it_in_a_collective(
    collector: CollectorProcess,
) -> None:
    env = {"ALLRANKS_URL": collector.url, "ALLRANKS_RUN_ID": _RUN}
    with scenario.started(collector.home, _RAISING, how=scenario.torchrun(2), env=env) as program:
        assert program.wait().exit_code == 1

        def have_ended() -> bool:
            return {row["state"] for row in collector.ranks(_RUN).values()} <= {"failed", "dead"}

        wait_until(have_ended, "both have ended", timeout_s=60.0)
        collector.await_drained()
    found: dict[str, Any] = collector.get(f"/api/runs/{_RUN}/why")
    first = found["first"]
    assert (found["outcome"], first["rank"], first["kind"]) == ("failed", 1, "exception")
    assert (first["cause"], first["last_step"]) == ("ValueError: the loss is not a number", 29)
    assert first["last_lines"][-1]["text"].endswith("ValueError: the loss is not a number")
    ((follower, kind),) = [(fate["rank"], fate["kind"]) for fate in found["followers"]]
    assert follower == 0
    assert kind in ("connection", "terminated")  # whichever of the two reaches it first


def test_a_deadlocked_dataloader_is_told_with_who_waits_for_it(
    collector_of: Callable[[dict[str, str]], CollectorProcess],
) -> None:
    with collector_of({"ALLRANKS_STALL_MIN_S": "1"}) as collector, contextlib.ExitStack() as stack:
        env = {"ALLRANKS_URL": collector.url, "ALLRANKS_RUN_ID": _RUN, "WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank in range(2):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            stack.enter_context(scenario.started(collector.home, _DEADLOCKED, env={**env, **place}))

        def stand() -> dict[str, Any] | None:
            if [row["state"] for row in collector.ranks(_RUN).values()] != ["stalled", "stalled"]:
                return None
            found: dict[str, Any] = collector.get(f"/api/runs/{_RUN}/stacks")
            return found if len(found["ranks"]) == 2 else None

        found = wait_until(stand, "both stand still, and have said where", timeout_s=_START_S)
        assert sorted(group["text"] for group in found["groups"]) == [
            f"rank 0 in all_reduce train.py:{_line(_DEADLOCKED, 'dist.all_reduce')}",
            f"rank 1 in DataLoader.__next__ train.py:{_line(_DEADLOCKED, 'next(loader)')}",
        ]
        why = collector.get(f"/api/runs/{_RUN}/why")
        assert why["lines"][0].startswith("stalled: ranks 0-1, all at step ")
        assert why["lines"][1] == f"they stand: {found['text']}"
