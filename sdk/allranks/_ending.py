"""How a process's part in a run stands, and how it ends: its last record, and where lies what is not stored then."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from allranks._log import RankLog
from allranks._publisher import Publisher
from allranks._warnings import say
from allranks_bus import events
from allranks_bus.events import Kind

FINISH_TIMEOUT_S = 5.0
_MAX_TRACEBACK_CHARS = 16_384


def describe(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> dict[str, str]:
    """An exception, for the record that closes the run: `type`, `message`, `traceback`."""
    import traceback  # only programs that fail need it

    try:
        lines = "".join(traceback.format_exception(kind, error, trace))
        message = str(error)
    except Exception:  # an exception whose __str__ raises
        lines = message = "<unprintable>"
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "message": message[:_MAX_TRACEBACK_CHARS],
        "traceback": lines[-_MAX_TRACEBACK_CHARS:],
    }


def plain_code(exit_code: Any) -> int | None:
    """What a program calls its exit code, as a record has it: 1 for whatever is no number of a sane size."""
    if exit_code is None:
        return None
    try:
        number = operator.index(exit_code)
    except TypeError:
        return int(bool(exit_code))
    return number if -(2**31) <= number < 2**32 else 1


def end_map(exit_code: int | None, failure: Mapping[str, str] | None) -> dict[str, Any]:
    """The map of a CLOSE record."""
    if failure is None:
        return {"exit_code": exit_code}
    return {"exit_code": 1 if exit_code is None else exit_code, "exception": failure}


def standing(log: RankLog | None, publisher: Publisher | None) -> dict[str, Any]:
    """What `Run.status` tells of the log and of its way to the collector, as far as is known here; never waits."""
    return {
        "logged": log.end if log else 0,
        "acked": publisher.acked if publisher else 0,
        "resends": publisher.resends if publisher else 0,
        "dropped": log.refused if log else 0,
        "spool": str(log.directory) if log else None,
        "spool_bytes": log.held_bytes if log else 0,
        "connected": bool(publisher and publisher.is_heard),
        "url": publisher.url if publisher else None,
        "http": publisher.http if publisher else None,
        "problem": (log.problem if log else "") or (publisher.refusal if publisher else ""),
    }


def end_log(
    log: RankLog, publisher: Publisher | None, end: Mapping[str, Any], timeout: float, *, leaves: bool
) -> bool:
    """Writes the last record and ships what is left; True where all of it is stored in `timeout` seconds.

    Args:
        leaves: the program ends, and this user's collector brings in what is left.
    """
    log.try_again()
    # A device that does not answer must not cost what can still be shipped.
    log.pending.finish(time.monotonic() + timeout / 2)
    log.report_drops()
    # Sealed, because other threads may go on logging: all that came before is waited for, and nothing after.
    log.seal(events.pack(Kind.CLOSE, time.time_ns(), end))
    if publisher is None:
        return False
    if leaves:
        return publisher.leave(timeout, FINISH_TIMEOUT_S if timeout else 0.0)
    return publisher.finish(timeout)


def say_where(run: str, log: RankLog, publisher: Publisher | None, *, is_offline: bool) -> None:
    """Says where the events are that nobody has stored yet, unless a collector brings them in by itself."""
    if is_offline:
        say(f"run {run}: offline; events are in {log.directory}: `allranks sync` ships them")
    elif publisher is None or not publisher.is_taken_over:
        waiting = log.end - (publisher.acked if publisher is not None else 0)
        say(
            f"run {run}: no collector took the last {waiting:,} events in time; they are kept in "
            f"{log.directory}: `allranks sync` ships them"
        )
