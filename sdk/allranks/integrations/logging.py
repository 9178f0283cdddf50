"""A `logging.Handler`: what a program says through `logging` is kept with its run.

    logging.getLogger().addHandler(AllranksHandler(level=logging.INFO))

or, in a configuration of `logging.config.dictConfig`:

    "handlers": {"run": {"class": "allranks.integrations.logging.AllranksHandler", "level": "INFO"}}

All records of a run are under one key, `logs`, at the step that was the newest when they were made:
`allranks.Client().objects(run, "logs")`. Each is an object with `logger`, `level`, `message` and `at` (path and
line); `exception` where there is one, and `thread` where it is not the main one.
"""

from __future__ import annotations

import copy
import logging
import threading
from typing import TYPE_CHECKING, Any

from allranks._signals import is_from_handler

if TYPE_CHECKING:
    from allranks import Run

KEY = "logs"
MAX_MESSAGE_CHARS = 65_536
# Of an exception the end is kept, where it says what it is.
MAX_EXCEPTION_CHARS = 16_384
_MAX_NAME_CHARS = 1_024

_plain = logging.Formatter()
# A warning of ours may come back through `logging`, where a program has put its stderr there.
_at_work = threading.local()


class AllranksHandler(logging.Handler):
    """Keeps each record as one event of the current run, from `init` to `finish`; before and after it nothing.

    A rank of a launch that leaves `init` to another one joins the launch's run by its first record. In a forked child
    the records are those of its own writer. A formatter, if one is set, makes `message`; else it is the bare message.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps `record`; what goes wrong goes to `handleError`, as with any handler."""
        if getattr(_at_work, "is_busy", False):
            return
        try:
            _at_work.is_busy = True
            run = _run()
            if run is not None:
                run.note(int(record.created * 1e9), KEY, self._body(record))
        except Exception as error:
            if is_from_handler(error):
                raise
            self.handleError(record)
        finally:
            _at_work.is_busy = False

    def _body(self, record: logging.LogRecord) -> dict[str, Any]:
        body = {
            "_type": "log",
            "logger": record.name[:_MAX_NAME_CHARS],
            "level": str(record.levelname)[:_MAX_NAME_CHARS],
            "message": _cut(self._message(record)),
            "at": f"{record.pathname}:{record.lineno}"[-_MAX_NAME_CHARS:],
        }
        exception = _exception(record)
        if exception:
            body["exception"] = exception[-MAX_EXCEPTION_CHARS:]
        if record.threadName and record.threadName != "MainThread":
            body["thread"] = record.threadName[:_MAX_NAME_CHARS]
        return body

    def _message(self, record: logging.LogRecord) -> str:
        if self.formatter is None:
            return record.getMessage()
        bare = copy.copy(record)
        bare.exc_info = bare.exc_text = bare.stack_info = None
        return self.formatter.format(bare)


def _run() -> Run | None:
    """The run that takes a record now, if any does."""
    from allranks import _current

    run = _current.current_or_implied()
    if run.is_started or (run.is_implied and run.identity.launcher != "single"):
        return run
    return None


def _exception(record: logging.LogRecord) -> str:
    """The traceback; what another handler has made of it already is taken from there."""
    parts = [record.exc_text or "", record.stack_info or ""]
    if record.exc_info and not record.exc_text:
        parts[0] = _plain.formatException(record.exc_info)
    return "\n".join(part for part in parts if part)


def _cut(text: str) -> str:
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    return f"{text[:MAX_MESSAGE_CHARS]} … ({len(text) - MAX_MESSAGE_CHARS:,} more letters)"
