"""How a process's part in a run begins: what it says of itself, and the log that it says it to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allranks._log import RankLog
from allranks._settings import RunSettings
from allranks._warnings import warn_once
from allranks_bus import home, processes
from allranks_bus.errors import ProtocolError, SpoolError
from allranks_bus.version import __version__

if TYPE_CHECKING:
    from allranks.facts import Facts
    from allranks.identity import Identity

_MAX_ARGV = 64
# What each scheduler sets in its jobs: it ends them by signals, and asks nobody.
_SCHEDULERS = {
    "SLURM_JOB_ID": "slurm",
    "KUBERNETES_SERVICE_HOST": "kubernetes",
    "PBS_JOBID": "pbs",
    "LSB_JOBID": "lsf",
}


def open_map(identity: Identity, facts: Facts, told: Mapping[str, Any]) -> dict[str, Any]:
    """The map of an OPEN record (protocol.md §4): who this process is, and what else is `told` but for None."""
    me = processes.current()
    optional = {"local_rank": identity.local_rank, "node_rank": identity.node_rank, **told}
    return {
        "run": identity.run,
        "project": identity.project,
        "launch": identity.launch,
        "rank": identity.rank,
        "world_size": identity.world_size,
        "role": identity.role,
        "host": facts.hostname,
        "pid": me.pid,
        "pid_start": me.start,
        "boot_id": me.boot_id,
        "pid_ns": me.pid_ns,
        "launcher": identity.launcher,
        "python": ".".join(map(str, sys.version_info[:3])),
        "allranks": __version__,
        "argv": [str(argument)[:1024] for argument in sys.argv[:_MAX_ARGV]],
        "cwd": _cwd(),
        **{key: value for key, value in optional.items() if value is not None},
    }


def wrapper_of(env: Mapping[str, str], run: str) -> list[int] | None:
    """Pid and start of the `allranks run` to whose command this process belongs; None where it belongs to none."""
    from allranks.parents import WRAPPER_VARIABLE, parse_parent

    wrapper = parse_parent(env.get(WRAPPER_VARIABLE, ""))
    return None if wrapper is None or wrapper.run != run else [wrapper.pid, wrapper.start]


def scheduler_of(env: Mapping[str, str]) -> str | None:
    """What runs this job; None where nothing does that sets what it does."""
    return next((name for variable, name in _SCHEDULERS.items() if variable in env), None)


def destination_of(settings: RunSettings) -> str:
    """Where a spool is meant to go, for whoever finds it."""
    if settings.mode == "offline":
        return "offline"
    return str(settings.address or f"embedded:{home.home_dir(settings.env)}")


def open_log(writer: bytes, opening: Mapping[str, Any], settings: RunSettings) -> RankLog | None:
    """The log of this writer, in the first folder that takes it; None, which is said, where none does."""
    _hold_standard_descriptors()
    problems: list[str] = []
    for root in home.spool_roots(settings.env):
        try:
            identity = {**opening, "spool": str(root / writer.hex())}
            return RankLog(root, writer, identity, cap_bytes=settings.spool_cap_bytes)
        except (SpoolError, ProtocolError) as error:
            problems.append(str(error))
    warn_once("spool", f"nothing can be kept: {'; '.join(problems)}. Set ALLRANKS_SPOOL; training goes on")
    return None


def _hold_standard_descriptors() -> None:
    """Opens what is closed of stdin, stdout and stderr, on nothing.

    A file of ours would get the number, and whatever prints to it without asking Python would write into that file.
    """
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
            pass
        os.close(fd)


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return ""
