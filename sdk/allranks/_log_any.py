"""`log()` for whatever is not a dict of plain numbers under known names: the way beside the hot path."""

from __future__ import annotations

import time
from typing import Any

from allranks import values
from allranks._log import RankLog
from allranks._signals import is_from_handler
from allranks._warnings import warn_once


def log_any(log: RankLog, data: object, step: object, time_ns: int | None = None) -> None:
    """Keeps all of `data` that can be kept, and warns once of each name that cannot.

    Args:
        step: what the program gave; None, or no step at all, means one more than that of the event before.
        time_ns: when it was, where that is not now.
    """
    flat = values.flatten(data)
    for key, problem in flat.problems:
        warn_once(f"value:{key}", f"log(): {key!r}: {problem}")
    given = _whole_step(step)
    is_counted = given is None
    at = log.next_step() if given is None else given
    names = tuple(flat.numbers)
    if time_ns is None and names and log.define(names):
        log.metrics(flat.numbers, at, is_counted)
        fields: dict[str, Any] = dict(flat.others)
    else:
        fields = {**flat.numbers, **flat.others}
    if fields or flat.on_device:
        log.follow(at, is_counted)
        log.append_fields(time.time_ns() if time_ns is None else time_ns, at, fields)
    if flat.on_device:
        log.pending.copy(at, flat.on_device, time_ns)


def _whole_step(step: object) -> int | None:
    """The step that the program gave, if it is one."""
    if step is not None:
        try:
            number = int(step)  # type: ignore[call-overload]
            if number == step and -(2**63) <= number < 2**63:
                return int(number)
        except Exception as error:  # whatever it is, it is no step
            if is_from_handler(error):
                raise
        # The `repr` of anything else may raise, or be long.
        what = repr(step)[:80] if type(step) in (str, float) else f"a {type(step).__name__}"
        if type(step) is int:
            what = "one beyond 64 bits"
        warn_once("step", f"log(): step must be a whole number, not {what}; the next one is used")
    return None
