"""`alerts`: which were sent, and do they arrive?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated, Any

import typer

from allranks_bus.http_client import HttpClient
from allranks_collector.cli.common import CommandError, Http, Json, UsageError
from allranks_collector.cli.output import age, cell, console, print_json, table
from allranks_collector.cli.reader import find_collector, open_reader

# What is kept of an alert: that it was told, and what became of it later where a target did not take it at once.
_KINDS = ("alerted", "alert-late", "alert-lost")
_STYLES = {"ERROR": "bold red", "WARN": "yellow"}


class Action(str, Enum):
    """What can be done with alerts."""

    TEST = "test"
    LIST = "list"


def alerts(
    action: Annotated[Action, typer.Argument(help="test: send one to every target. list: those of a run.")],
    run: Annotated[str | None, typer.Argument(help="For list: the run, by its id or name.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Have the collector send a test alert to all its targets and say how each answered; or list a run's alerts.

    The status of a test is 1 if a target did not take it.
    """
    if action is Action.TEST:
        _test(http, json_=json_)
        return
    if run is None:
        raise UsageError("name the run whose alerts are to be listed: allranks alerts list RUN")
    reader = open_reader(http, os.environ)
    found = sorted((event for kind in _KINDS for event in reader.events(run, kind)), key=lambda one: one["event"])
    if json_:
        print_json({"alerts": found})
    elif found:
        console().print(table(("when", "level", "alert", "targets"), _rows(found), right=("when",)))
    else:
        console().print("No alerts.")


def _test(http: str | None, *, json_: bool) -> None:
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


def _rows(found: Iterable[Mapping[str, Any]]) -> Iterable[tuple[object, ...]]:
    now = time.time()
    for event in found:
        body = event["body"]
        level = body.get("level", "")
        yield age(event["time"], now), cell(level, _STYLES.get(level, "")), body["title"], _answers(event)


def _answers(event: Mapping[str, Any]) -> object:
    """What the targets said, in one line; red where one has not got it."""
    body = event["body"]
    if event["kind"] == "alert-late":
        return f"{body['target']}: sent at try {body['tries']}"
    if event["kind"] == "alert-lost":
        return cell(f"{body['target']}: never taken: {body['problem']}", "red")
    targets: Mapping[str, str] = body["targets"]
    if not targets:
        return "no target is set"
    is_sent = set(targets.values()) == {"sent"}
    return cell("; ".join(f"{name}: {said}" for name, said in targets.items()), "" if is_sent else "yellow")
