"""The command line as a whole: which commands there are, and how errors end."""

from __future__ import annotations

import errno
import os
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

import typer

from allranks_bus.errors import AllranksError
from allranks_bus.http_client import Refused
from allranks_bus.version import __version__
from allranks_collector.cli import (
    alerts,
    attempts,
    command,
    data,
    demo,
    differences,
    files,
    health,
    logs,
    process,
    stacks,
    stragglers,
    sync,
    top,
    why,
)
from allranks_collector.cli.common import UsageError
from allranks_collector.cli.output import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# In the order of `allranks --help`: what a newcomer needs first.
COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("demo", demo.demo),
    ("run", command.run),
    ("up", process.up),
    ("down", process.down),
    ("status", process.status),
    ("runs", data.runs),
    ("ranks", data.ranks),
    ("top", top.top),
    ("why", why.why),
    ("diff", differences.diff),
    ("stacks", stacks.stacks),
    ("stragglers", stragglers.stragglers),
    ("attempts", attempts.attempts),
    ("logs", logs.logs),
    ("export", data.export),
    ("files", files.files),
    ("download", files.download),
    ("rm", data.remove),
    ("sync", sync.sync),
    ("alerts", alerts.alerts),
    ("doctor", health.doctor),
    ("collector", process.collector),
)


# What a disk, a quota or a file's limit answers to those who print.
_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def make_app() -> typer.Typer:
    """The commands as one typer application."""
    app = typer.Typer(
        name="allranks",
        help="Hear from every rank: an event bus, collector and dashboard for distributed training.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, function in COMMANDS:
        # What follows the first word of a command that is run is that one's.
        settings = {"allow_interspersed_args": False} if function is command.run else None
        app.command(name, context_settings=settings)(function)

    @app.callback(invoke_without_command=True)
    def root(  # pyright: ignore[reportUnusedFunction]
        context: typer.Context,
        version: bool = typer.Option(False, "--version", help="Print the version."),
    ) -> None:
        if version:
            typer.echo(__version__)
        elif context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return app


def run(argv: Sequence[str]) -> int:
    """Run one command. Whatever goes wrong is one line on stderr: status 2 for wrong usage, else 1."""
    try:
        status = make_app()(args=list(argv), prog_name="allranks", standalone_mode=False)
        sys.stdout.flush()
    except AllranksError as error:
        return _fail(str(error), 2 if _is_usage(error) else 1)
    except BrokenPipeError:
        # Whoever read us has gone (`| head`).
        _let_stdout_go()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        if error.filename is not None or error.errno not in _NOT_WRITTEN:
            raise
        _let_stdout_go()
        return _fail(f"cannot write: {error.strerror}", 1)
    except Exception as error:
        # typer's own errors (wrong options and the like) bring their text and status; which classes they are
        # depends on its version.
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        command = getattr(getattr(error, "ctx", None), "command_path", "allranks")
        return _fail(f"{explain()} (see {command} --help)", int(getattr(error, "exit_code", 2)))
    return status if isinstance(status, int) else 0


def _is_usage(error: AllranksError) -> bool:
    """Whether it is the user's words that make no sense: to us, to the collector, or to a query of the database."""
    if isinstance(error, Refused):
        return error.status == HTTPStatus.BAD_REQUEST
    if isinstance(error, UsageError):
        return True
    # Heavy, and needed only here.
    from allranks_collector.queries.select import BadQuery

    return isinstance(error, BadQuery)


def _let_stdout_go() -> None:
    """The interpreter flushes stdout once more at exit: into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, status: int) -> int:
    error_line(text)
    return status
