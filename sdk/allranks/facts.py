"""What the machine tells of this process: gathered at the edge, once, as values for the pure `identity`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allranks_bus import processes

from .launchers import PLACE_NAMES

# A rank is seldom more than a wrapper or two below its launcher.
MAX_ANCESTORS = 8
# /proc/PID/stat: "forked but did not exec" (linux/sched.h).
_PF_FORKNOEXEC = 0x40


@dataclass(frozen=True)
class Process:
    """One process: `env` is those of its variables that tell a place, as they were when it was exec'd."""

    pid: int
    start: int
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Facts:
    """One process, its host and its ancestors.

    Attributes:
        boot_id, pid_ns: what a pid is unique within, together with the start time.
        ancestors: parent, grandparent … as far as they can be seen; empty at the edge of a container.
        forked: it was forked and has not exec'd since.
        mp_parent: pid of the process that made this one through multiprocessing.
        main_child: it is a spawned multiprocessing child, just now running the user's main module again.
    """

    boot_id: str
    hostname: str
    me: Process
    ancestors: tuple[Process, ...] = ()
    pid_ns: int = 0
    uid: int = 0
    forked: bool = False
    mp_parent: int | None = None
    main_child: bool = False

    @property
    def pid(self) -> int:
        return self.me.pid

    @property
    def ppid(self) -> int:
        return self.ancestors[0].pid if self.ancestors else 0


@dataclass(frozen=True)
class Dist:
    """What `torch.distributed` tells of this process; `run` and `launch` where all its ranks agreed on them."""

    rank: int
    world_size: int
    run: str | None = None
    launch: str | None = None


def gather_facts() -> Facts:
    """The facts of this process; what cannot be read is empty, and nothing raises."""
    pid = os.getpid()
    ancestors: list[Process] = []
    parent = os.getppid()
    while parent > 0 and len(ancestors) < MAX_ANCESTORS:
        ancestors.append(_process(parent))
        parent = processes.parent_of(parent) or 0
    mp_parent, main_child = _multiprocessing()
    return Facts(
        boot_id=processes.boot_id(),
        hostname=os.uname().nodename,
        me=_process(pid),
        ancestors=tuple(ancestors),
        pid_ns=processes.pid_namespace(),
        uid=os.getuid(),
        forked=_is_forked(),
        mp_parent=mp_parent,
        main_child=main_child,
    )


def _process(pid: int) -> Process:
    place: dict[str, str] = {}
    for item in _proc_strings(pid, "environ"):
        name, _, value = item.partition("=")
        if name in PLACE_NAMES:
            place[name] = value
    return Process(pid, processes.start_time(pid) or 0, _proc_strings(pid, "cmdline"), place)


def _proc_strings(pid: int, name: str) -> tuple[str, ...]:
    """The NUL-separated strings of a file of /proc; none for another user's process."""
    try:
        data = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("utf-8", "surrogateescape") for part in data.rstrip(b"\0").split(b"\0") if part)


def _is_forked() -> bool:
    try:
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & _PF_FORKNOEXEC)
    except (OSError, IndexError, ValueError):
        return False


def _multiprocessing() -> tuple[int | None, bool]:
    """The pid of the multiprocessing parent, and whether this child is still being prepared.

    A child has imported multiprocessing already. While it prepares, which runs the user's main module again, its
    current process is marked `_inheriting` (multiprocessing/spawn.py, since 3.3).
    """
    module = sys.modules.get("multiprocessing.process")
    if module is None:
        return None, False
    try:
        parent = module.parent_process()
        inheriting = bool(getattr(module.current_process(), "_inheriting", False))
        return (None if parent is None or parent.pid is None else int(parent.pid)), inheriting
    except Exception:
        return None, False


# What a forked child found when it began: the process group of its parent, whose connections are the parent's.
_inherited_group: object = None


def forget_group() -> None:
    """To be called in a forked child: a word of its own on its parent's connection would break the parent's talk."""
    global _inherited_group
    _inherited_group = _process_group()


def _process_group() -> Any:
    """The default process group; None where torch.distributed is not up."""
    dist = sys.modules.get("torch.distributed")
    try:
        if dist is None or not (dist.is_available() and dist.is_initialized()):
            return None
        return dist.group.WORLD
    except Exception:
        return None


def dist_probe() -> Dist | None:
    """What torch.distributed tells, if it is imported and initialised here; never imports it, and never raises."""
    group = _process_group()
    if group is None or group is _inherited_group:
        return None
    try:
        dist = sys.modules["torch.distributed"]
        return Dist(int(dist.get_rank()), int(dist.get_world_size()))
    except Exception:
        return None


def dist_agree(key: str, proposal: str) -> str | None:
    """What all ranks of the default process group agree on under `key`, without waiting for each other.

    The first that comes here puts its proposal into the group's store, in which compare_set is atomic; every later
    one gets that same text back. None where there is no such store: the MPI backend, a server that has gone.
    """
    if dist_probe() is None:
        return None
    try:
        store = sys.modules["torch.distributed.distributed_c10d"]._get_default_store()
        return bytes(store.compare_set(f"allranks/{key}", "", proposal)).decode()
    except Exception:
        return None
