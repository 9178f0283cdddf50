"""`sync`: bring in what lies in spools and outboxes on this disk, of offline runs and of writers that died."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allranks_bus import events
from allranks_bus.addresses import Address, parse_address
from allranks_bus.draining import GLANCE_S, drain
from allranks_bus.errors import AllranksError, ProtocolError, SpoolBusy
from allranks_bus.home import spool_roots
from allranks_bus.spool_directory import find_spools
from allranks_bus.spool_reader import SpoolReader
from allranks_collector.cli.common import Json, UsageError
from allranks_collector.cli.outboxes import Bars, bars, outboxes_in, ship_files
from allranks_collector.cli.output import cell, console, print_json, table
from allranks_collector.cli.process import start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allranks_bus.files.outbox import Found


@dataclass(frozen=True)
class Synced:
    """What became of one spool, or of an outbox with files; `problem` is empty where all of it is stored."""

    spool: str
    run: str
    records: int
    files: int = 0
    busy: bool = False
    problem: str = ""

    @property
    def result(self) -> str:
        """In words."""
        if self.busy:
            return "in use: its writer lives, or the collector is bringing it in"
        return self.problem or "stored"


def sync(
    directories: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIR]...", help="Spools, or folders of spools; this user's own is the default."),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where to: tcp://HOST:PORT (or ALLRANKS_URL).")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Longest wait for any progress with a spool.")
    ] = 30.0,
    json_: Json = False,
) -> None:
    """Ship spools and files that were left on disk to the collector; status 1 if some could not be."""
    places = [Path(name).absolute() for name in directories or []] or list(spool_roots(os.environ))
    for place in places if directories else []:
        if not place.is_dir():
            raise UsageError(f"{place} is no folder")
    spools = _spools(places)
    find = Destinations(url, os.environ)
    results = [bring_in(spool, find, timeout) for spool in spools]
    # After the spools, which make the runs known that the files belong to.
    with bars() as progress:
        results += [bring_in_files(box, find, timeout, progress) for box in outboxes_in(places)]
    if json_:
        print_json([{**vars(result), "result": result.result} for result in results])
    elif results:
        rows = [
            (
                result.run,
                result.records or None,
                result.files or None,
                cell(result.result, "red" if result.problem else ""),
                result.spool,
            )
            for result in results
        ]
        console().print(table(("run", "records", "files", "result", "spool"), rows, right=("records", "files")))
    else:
        console().print("No spools wait.")
    if any(result.problem for result in results):
        raise typer.Exit(1)


def _spools(places: Iterable[Path]) -> list[Path]:
    """Each place is a folder of spools, or a spool itself."""
    found: list[Path] = []
    for place in places:
        inside = list(find_spools(place))
        found += inside or [spool for spool in find_spools(place.parent) if spool == place]
    return found


class Destinations:
    """Where each spool goes: where the user says; else where its writer wanted it; else this user's collector."""

    def __init__(self, url: str | None, env: Mapping[str, str]) -> None:
        self._url = url
        self._env = env
        self._own: Address | None = None

    def of(self, spool: Path) -> Address:
        """The collector's address.

        Raises:
            SpoolBusy, SpoolError: the spool cannot be opened.
            AllranksError: there is no collector to ship to.
        """
        return parse_address(self._url) if self._url else self.meant_for(destination(spool))

    def meant_for(self, wanted: str) -> Address:
        """The collector's address for what is meant to go to `wanted`.

        Raises:
            AllranksError: there is no collector to ship to.
        """
        if self._url:
            return parse_address(self._url)
        if wanted.startswith(("tcp://", "ipc://")):
            return parse_address(wanted)
        if self._own is None:  # a collector is started for spools that wait, and not before
            named = self._env.get("ALLRANKS_URL")
            self._own = parse_address(named or start(self._env, keep=False).url)
        return self._own


def destination(spool: Path) -> str:
    """Where the spool's writer wanted it: a URL, `embedded:HOME` or `offline`; empty where unknown."""
    reader = SpoolReader(spool)
    try:
        identity = {} if reader.is_empty else events.unpack(reader.opening())[2]
        return str(identity.get("destination", "")) if isinstance(identity, dict) else ""
    except (ProtocolError, IndexError):
        return ""
    finally:
        reader.close()


def bring_in(spool: Path, destinations: Destinations, timeout_s: float) -> Synced:
    """Ship one spool, and tell what became of it."""
    try:
        try:
            drained = drain(spool, destinations.of(spool), timeout_s=timeout_s)
        except SpoolBusy:  # a collector may be looking at it just now
            time.sleep(GLANCE_S)
            if not spool.exists():  # it was brought in meanwhile
                raise
            drained = drain(spool, destinations.of(spool), timeout_s=timeout_s)
    except SpoolBusy:
        return Synced(str(spool), "", 0, busy=True)
    except AllranksError as error:
        return Synced(str(spool), "", 0, problem=str(error))
    return Synced(str(spool), drained.run, drained.records, problem="" if drained.is_done else drained.problem)


def bring_in_files(box: Found, destinations: Destinations, timeout_s: float, progress: Bars) -> Synced:
    """Ship the files of one outbox, and tell what became of them."""
    about = box.about
    run = about.run if about else ""
    try:
        address = destinations.meant_for(about.destination if about else "")
        shipped = ship_files(box, address, timeout_s, progress)
    except SpoolBusy:
        return Synced(str(box.directory), run, 0, busy=True)
    except AllranksError as error:
        return Synced(str(box.directory), run, 0, problem=str(error))
    problem = ""
    if shipped.left:
        why = shipped.problems[-1] if shipped.problems else f"the collector at {address} does not take them"
        problem = f"{shipped.left} file{'s' * (shipped.left > 1)} not stored: {why}"
    return Synced(str(box.directory), run, 0, shipped.stored, problem=problem)
