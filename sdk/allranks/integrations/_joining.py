"""How an integration comes to its run: the one that is there, else one that begins by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import allranks
from allranks import Run


def joined(told: Mapping[str, Any]) -> Run:
    """The current run, started; each rank of a launch calls this alike.

    Args:
        told: arguments of `allranks.init`, for a run that begins here.
    """
    run = allranks.run
    if run.is_started:
        return run
    if run.is_implied and not run.is_inherited and not told and run.rank > 0:
        # It joins by its first event. To call `init` with nothing to say would contradict a rank that had more.
        return run
    return allranks.init(**told)
