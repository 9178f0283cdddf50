"""`alerts`: do they arrive?"""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from allranks_bus.http_client import HttpClient
from allranks_collector.cli.common import CommandError, Http, Json
from allranks_collector.cli.output import cell, console, print_json, table
from allranks_collector.cli.reader import find_collector


class Action(str, Enum):
    """What can be done with alerts."""

    TEST = "test"


def alerts(
    action: Annotated[Action, typer.Argument(help="test: send one to every target.")],  # noqa: ARG001
    http: Http = None,
    json_: Json = False,
) -> None:
    """Have the collector send a test alert to all its targets, and say how each answered; status 1 if one did not."""
    url = find_collector(http, os.environ)
    if url is None:
        raise CommandError("no collector runs here: start one (allranks up), or name one with --http")
    targets = HttpClient(url).post("/api/alerts/test")["targets"]
    if json_:
        print_json({"targets": targets})
    else:
        rows = [(target["name"], "sent" if target["sent"] else cell(target["problem"], "red")) for target in targets]
        console().print(table(("target", "answer"), rows))
    if not all(target["sent"] for target in targets):
        raise typer.Exit(1)
