"""What several commands share: their common options, and how a run's data is reached."""

from __future__ import annotations

from typing import Annotated

import typer

from allranks_bus.errors import AllranksError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Http = Annotated[
    str | None,
    typer.Option("--http", metavar="URL", help="Ask the collector at this HTTP address (or ALLRANKS_HTTP)."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning of it, or its name.")]


class CommandError(AllranksError):
    """A command cannot do what it was asked; the message is one line for the user."""


class UsageError(CommandError):
    """What was asked makes no sense as it is written."""
