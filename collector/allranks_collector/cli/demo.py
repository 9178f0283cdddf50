"""`demo`: a real training of a few ranks on this machine, watched through the collector."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.live import Live

from allranks_bus.errors import AllranksError
from allranks_collector.cli.common import CommandError, Http, Json, UsageError
from allranks_collector.cli.demo_view import View, progress_line, progress_table, settled
from allranks_collector.cli.output import clean, console, print_json, ranks_table, runs_table
from allranks_collector.cli.process import start
from allranks_collector.cli.reader import find_collector
from allranks_collector.cli.remote_reader import RemoteReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECT = "demo"
POLL_S = 0.5
LINE_EVERY_S = 2.0  # where there is no terminal
SETTLE_S = 10.0  # for the collector to store the last events and to name who died
INTERRUPT_S = 15.0


def demo(
    ranks: Annotated[int, typer.Option("--ranks", "-n", min=1, help="How many ranks train.")] = 4,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Train for so long (default 15).")] = None,
    kill_rank: Annotated[
        int | None, typer.Option("--kill-rank", min=0, metavar="R", help="Rank R kills itself after a third.")
    ] = None,
    stall_rank: Annotated[
        int | None, typer.Option("--stall-rank", min=0, metavar="R", help="Rank R stands still after a third.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Longest wait of ranks for one another.")
    ] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Train a small model on several ranks, and watch it live."""
    for flag, rank in (("--kill-rank", kill_rank), ("--stall-rank", stall_rank)):
        if rank is not None and rank >= ranks:
            raise UsageError(f"{flag} must be 0 to {ranks - 1}, not {rank}")
    if kill_rank is not None and stall_rank is not None:
        raise UsageError("one rank can be in trouble, not two: --kill-rank or --stall-rank")
    url, env = _collector(http, os.environ)
    name = f"digits-{secrets.token_hex(3)}"
    options = {
        "--ranks": ranks,
        "--name": name,
        "--seconds": seconds,
        "--kill-rank": kill_rank,
        "--stall-rank": stall_rank,
        "--timeout": timeout,
    }
    arguments = [text for flag, value in options.items() if value is not None for text in (flag, str(value))]
    if not json_:
        console().print(f"Dashboard: [bold]{url}[/bold]")
    view = View(name, ranks)
    with tempfile.TemporaryFile() as log:
        status = _train(arguments, env, log, RemoteReader(url), view, quiet=json_)
        trouble = kill_rank if kill_rank is not None else stall_rank
        _report(view, url, status, log, trouble=trouble, json_=json_)


def _collector(http: str | None, env: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The HTTP address of the collector that the ranks will find, and the environment in which they find it.

    Without a word from the user it is this user's own, started if there is none. Where one was named by its HTTP
    address, it tells where its events go.
    """
    named = http or env.get("ALLRANKS_HTTP")
    if env.get("ALLRANKS_URL") and not named:
        raise UsageError("ALLRANKS_URL names a collector: give its HTTP address too, with --http or ALLRANKS_HTTP")
    if not named:
        return find_collector(None, env) or start(env, keep=False).http, env
    url = named.rstrip("/")
    if env.get("ALLRANKS_URL"):
        return url, env
    return url, {**env, "ALLRANKS_URL": str(RemoteReader(url).status()["url"])}


def _train(
    arguments: list[str], env: Mapping[str, str], log: BinaryIO, reader: RemoteReader, view: View, *, quiet: bool
) -> int:
    """Run the job to its end, and its exit status; `view` follows what the collector knows of it."""
    command = [sys.executable, "-m", "allranks.demo", *arguments]
    job = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        with _display(view, quiet=quiet) as show:
            while job.poll() is None:
                _look(reader, view)
                show()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(POLL_S)
            deadline = time.monotonic() + SETTLE_S
            while not settled(view) and job.returncode != 2 and time.monotonic() < deadline:
                _look(reader, view)
                show()
                time.sleep(POLL_S / 5)
            _look(reader, view)
        if view.run is not None:
            why = reader.why(view.run["id"])
            view.cause = str(why["verdict"]) if why["first"] else None
    except KeyboardInterrupt:
        # The terminal has sent Ctrl-C to the launcher too, which ends its ranks.
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(INTERRUPT_S)
        raise
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait(INTERRUPT_S)
    return job.returncode


def _look(reader: RemoteReader, view: View) -> None:
    """Bring the view up to date; a collector that does not answer for a moment changes nothing."""
    with contextlib.suppress(AllranksError):
        if view.run is None:
            view.run = next((run for run in reader.runs(project=PROJECT, limit=20) if run["name"] == view.name), None)
        if view.run is not None:
            view.run = reader.run(view.run["id"])
            view.see(reader.ranks(view.run["id"]))
        view.count(reader.status().get("points"), time.monotonic())


@contextlib.contextmanager
def _display(view: View, *, quiet: bool) -> Any:
    out = console(redrawn=True)
    if quiet:
        yield lambda: None
    elif out.is_terminal:
        with Live(progress_table(view), console=out, transient=True, refresh_per_second=4) as live:
            yield lambda: live.update(progress_table(view))
    else:
        yield _lines(out.print, view)


def _lines(say: Callable[[str], None], view: View) -> Callable[[], None]:
    said = float("-inf")

    def show() -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_EVERY_S:
            said = time.monotonic()
            say(progress_line(view))

    return show


def _report(view: View, url: str, status: int, log: BinaryIO, *, trouble: int | None, json_: bool) -> None:
    """The end: the run, its ranks, the cause; and the exit status, which is well where trouble was asked for."""
    as_asked = status == 0 if trouble is None else status == 1 and trouble in view.troubled
    if view.run is None or (not as_asked and view.cause is None):
        log.seek(0)
        last = (log.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise CommandError(f"the training ended with status {status}: {clean(last)}")
    if json_:
        told = {"http": url, "run": view.run, "ranks": view.ranks, "trouble": view.troubled}
        print_json({**told, "cause": view.cause, "status": status})
    else:
        now, out = time.time(), console()
        out.print(runs_table([view.run], now), ranks_table(view.ranks, now))
        out.print(progress_line(view))
        if view.cause is not None:
            out.print("[bold]Cause:[/bold] ", end="")
            out.print(clean(view.cause), markup=False)
        out.print(f"Its page: {url}/runs/{view.run['id']}", markup=False)
        idle_s = _idle_exit_s(url)
        if idle_s is not None:
            out.print(
                f"Where nobody looks for {idle_s:g} s the collector ends; the run is kept, and allranks up shows it."
            )
    if not as_asked:
        raise typer.Exit(1)


def _idle_exit_s(url: str) -> float | None:
    """After how long without writers and viewers the collector ends by itself; None: never, or nobody knows."""
    with contextlib.suppress(AllranksError):
        value = RemoteReader(url).status().get("settings", {}).get("idle_exit_s", {}).get("value")
        return float(value) if isinstance(value, (int, float)) else None
    return None
