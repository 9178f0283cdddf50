"""The collector as a process: `up`, `down`, `status`, `collector`."""

from __future__ import annotations

import inspect
import os
import signal
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allranks_bus import processes
from allranks_bus.home import Endpoint, home_dir, read_endpoint, spool_roots
from allranks_bus.launch import ensure_collector
from allranks_collector.cli.common import CommandError, Http, Json
from allranks_collector.cli.output import cell, console, duration, print_json, size, table
from allranks_collector.cli.reader import find_collector
from allranks_collector.cli.remote_reader import RemoteReader
from allranks_collector.settings import SWITCH, TABLE, Setting, load_settings
from allranks_collector.spools import look_at_spools, orphans

if TYPE_CHECKING:
    from collections.abc import Mapping

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_POLL_S = 0.05


def up(
    open_: Annotated[bool, typer.Option("--open", help="Open the dashboard in a browser.")] = False,
    json_: Json = False,
) -> None:
    """Start this user's collector in the background, and keep it until `allranks down`."""
    home = home_dir(os.environ)
    running = read_endpoint(home)
    if running is not None and _ends_when_idle(running):
        # It was started by `init` and would go when idle. Writers and viewers do not notice the change.
        stop(running)
        running = None
    endpoint = running or start(os.environ, keep=True)
    if open_:
        webbrowser.open(endpoint.http)
    if json_:
        print_json({"http": endpoint.http, "url": endpoint.url, "pid": endpoint.pid, "started": running is None})
        return
    word = "runs already" if running else "is up"
    console().print(f"The collector {word}: dashboard [bold]{endpoint.http}[/bold], data {endpoint.url}")


def down(json_: Json = False) -> None:
    """Stop this user's collector. Training goes on; its events wait in the spools."""
    endpoint = read_endpoint(home_dir(os.environ))
    if endpoint is not None:
        stop(endpoint)
    if json_:
        print_json({"stopped": endpoint is not None})
        return
    console().print(f"The collector (pid {endpoint.pid}) has ended." if endpoint else "No collector runs.")


def start(env: Mapping[str, str], *, keep: bool) -> Endpoint:
    """This user's collector, started if none runs.

    Raises:
        AllranksError: it does not come up; the message says where its log is.
    """
    endpoint = ensure_collector(env, timeout_s=START_TIMEOUT_S, keep=keep)
    if endpoint is None:
        raise CommandError("the collector did not start")
    return endpoint


def stop(endpoint: Endpoint, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End the collector, and wait until it is gone.

    Raises:
        CommandError: it belongs to somebody else, or does not end.
    """
    try:
        if processes.is_alive(endpoint.pid, endpoint.pid_start):
            os.kill(endpoint.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise CommandError(f"the collector (pid {endpoint.pid}) belongs to another user") from None
    deadline = time.monotonic() + timeout_s
    while processes.is_alive(endpoint.pid, endpoint.pid_start):
        if time.monotonic() > deadline:
            raise CommandError(f"the collector (pid {endpoint.pid}) does not end: kill -9 {endpoint.pid} ends it")
        time.sleep(_POLL_S)


def _ends_when_idle(endpoint: Endpoint) -> bool:
    settings = RemoteReader(endpoint.http).status().get("settings", {})
    return settings.get("idle_exit_s", {}).get("value") is not None


def status(http: Http = None, json_: Json = False) -> None:
    """What the collector is doing, and what waits for it."""
    url = find_collector(http, os.environ)
    waiting = orphans(look_at_spools(spool_roots(os.environ)))
    facts: dict[str, Any] = {"running": url is not None}
    if url is not None:
        facts |= RemoteReader(url).status()
    facts["orphaned_spools"] = {"count": len(waiting), "bytes": sum(spool.bytes for spool in waiting)}
    if json_:
        print_json(facts)
        return
    rows = _status_rows(facts) if url is not None else [("collector", "none runs; allranks up starts one")]
    held = size(facts["orphaned_spools"]["bytes"])
    rows.append(("orphaned spools", f"{len(waiting)} with {held}: allranks sync" if waiting else "none"))
    console().print(table(("", ""), [(cell(name, "dim"), value) for name, value in rows]))


def _status_rows(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    database, files = facts.get("database") or {}, facts.get("files") or {}
    return [
        ("collector", f"{facts.get('http')} (pid {facts.get('pid')})"),
        ("version", facts.get("version")),
        ("data", facts.get("url")),
        ("up for", duration(float(facts.get("uptime") or 0.0))),
        ("writers", facts.get("writers")),
        ("events", facts.get("events")),
        ("points", facts.get("points")),
        ("commits", facts.get("commits")),
        ("rejected messages", facts.get("rejected")),
        ("backlog", size(facts.get("pending_bytes"))),
        ("database", f"{database.get('path')} ({size(database.get('bytes'))})"),
        ("files", f"{files.get('stored')} stored, {files.get('arriving')} arriving, in {files.get('path')}"),
        *([("files wait", cell(files["problem"], "yellow"))] if files.get("problem") else []),
    ]


def collector(**flags: Any) -> None:
    """Run a collector in the foreground, until Ctrl-C or SIGTERM."""
    from allranks_collector import service

    embedded, keep = bool(flags.pop("embedded")), bool(flags.pop("keep"))
    config = flags.pop("config")
    if keep and flags.get("idle_exit_s") is None:
        flags["idle_exit_s"] = "none"
    settings = load_settings(flags, os.environ, Path(config).expanduser() if config else None, embedded=embedded)
    raise typer.Exit(service.run(settings, embedded=embedded))


def _flags() -> list[inspect.Parameter]:
    """The options of `collector`: one for each row of the settings' table, which alone says what there is."""
    return [
        _flag("config", str | None, None, "--config", metavar="FILE", help="The TOML file of settings."),
        *(_setting_flag(row) for row in TABLE),
        *(_flag(name, bool, False, f"--{name}", hidden=True) for name in ("embedded", "keep")),
    ]


def _setting_flag(row: Setting) -> inspect.Parameter:
    about = f"{row.help} [{row.env}]"
    if row.kind is SWITCH:
        return _flag(row.name, bool | None, None, f"{row.flag}/--no-{row.flag[2:]}", help=about)
    return _flag(row.name, str | None, None, row.flag, metavar=row.kind.metavar, help=about)


def _flag(name: str, kind: Any, default: object, *declared: str, **about: Any) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(*declared, **about)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


# typer reads a command's options off its signature.
collector.__signature__ = inspect.Signature(_flags())  # type: ignore[attr-defined]
collector.__annotations__ = {parameter.name: parameter.annotation for parameter in _flags()}
