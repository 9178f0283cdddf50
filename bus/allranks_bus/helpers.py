"""Helper processes: started by exec, in a session of their own, and nobody's children.

Nothing of multiprocessing, so that nobody's main module is imported again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_MAX_LOG_BYTES = 8 * 1024 * 1024


def start_helper(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    pass_fds: Sequence[int] = (),
    timeout_s: float,
) -> None:
    """Runs `python -m MODULE ARGUMENTS…` as a process that outlives this one.

    It works in `cwd`, a folder of ours: there no file of the user's shadows a module. What it prints goes to `log`.

    Raises:
        OSError, subprocess.SubprocessError: it could not be started, or not in `timeout_s`.
    """
    mode = "wb" if log.exists() and log.stat().st_size > _MAX_LOG_BYTES else "ab"
    with open(log, mode) as output:
        starter = subprocess.Popen(
            [sys.executable, "-m", "allranks_bus.detach", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=helper_environment(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
        # It forks and ends at once, so that the training has no child that it did not make.
        try:
            starter.wait(max(0.0, timeout_s))
        except BaseException:
            starter.kill()
            starter.wait()
            raise


def helper_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` as a helper of its owner may have it."""
    helpers = dict(env)
    # Relative entries would mean something else in the helper's working directory.
    if env.get("PYTHONPATH"):
        helpers["PYTHONPATH"] = os.pathsep.join(
            str(Path(entry).absolute()) for entry in env["PYTHONPATH"].split(os.pathsep) if entry
        )
    # A rank's place in its world is not its helper's.
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        helpers.pop(variable, None)
    return helpers
