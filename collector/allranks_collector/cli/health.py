"""`doctor`: is all well here, and what to do where not."""

from __future__ import annotations

import dataclasses
import os
import time

import typer

from allranks_bus.errors import AllranksError
from allranks_collector.cli.common import Http, Json
from allranks_collector.cli.output import cell, console, print_json, state_cell, table
from allranks_collector.cli.reader import find_collector
from allranks_collector.cli.remote_reader import RemoteReader
from allranks_collector.doctor import has_failed
from allranks_collector.doctor_facts import Told, examine


def doctor(http: Http = None, json_: Json = False) -> None:
    """Check this host and its collector; status 1 if something is broken."""
    findings, settings = examine(os.environ, _ask(find_collector(http, os.environ)))
    if json_:
        described = settings.described() if settings else {}
        print_json({"findings": [dataclasses.asdict(finding) for finding in findings], "settings": described})
    else:
        out = console()
        rows = [(state_cell(f.level), f.name, f.what, cell(f.what_to_do, "bold")) for f in findings]
        out.print(table(("", "check", "found", "what to do"), rows))
        if settings is not None:
            named = [(name, entry["value"], entry["source"]) for name, entry in settings.described().items()]
            out.print(table(("setting", "value", "from"), named))
    if has_failed(findings):
        raise typer.Exit(1)


def _ask(url: str | None) -> Told:
    if url is None:
        return Told()
    began = time.time()
    try:
        status = RemoteReader(url).status()
    except AllranksError:
        return Told(url)  # the check of the collector's sockets says why
    took_s = time.time() - began
    return Told(url, status, took_s, began + took_s / 2)
