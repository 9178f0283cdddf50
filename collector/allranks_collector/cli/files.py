"""A run's files: `files` lists them, and watches those that arrive; `download` brings them here."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from allranks_bus.errors import BadFileName
from allranks_bus.files.download import Content, is_there
from allranks_bus.files.names import check_file_name
from allranks_collector.cli.common import CommandError, Http, Json, RunName, UsageError
from allranks_collector.cli.output import age, clean, console, print_json, size, table
from allranks_collector.cli.reader import Reader, open_reader

_LOOK_S = 0.5


def files(run: RunName, http: Http = None, json_: Json = False) -> None:
    """List the files of a run; on a terminal, watch those that are arriving."""
    reader = open_reader(http, os.environ)
    found = reader.files(run)
    if json_:
        print_json(found)
        return
    out = console()
    if out.is_terminal and found["arriving"]:
        found = watch(reader, run, found)
    if found["files"]:
        out.print(_files_table(found["files"], time.time()))
        out.print(f"{_count(found['files'])}, {size(found['total_bytes'])}.")
    else:
        out.print("No files.")
    if found["arriving"]:
        out.print(_arriving_table(found["arriving"]))


def download(
    run: RunName,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Which: names, or patterns such as '*.ckpt'; all if absent."),
    ] = None,
    to: Annotated[str, typer.Option("--to", "-o", metavar="DIR", help="Where to.")] = ".",
    host: Annotated[str | None, typer.Option("--host", help="Only of this host.")] = None,
    http: Http = None,
    json_: Json = False,
) -> None:
    """Download files of a run; what is there already, or in part, is not sent again."""
    reader = open_reader(http, os.environ)
    listed: list[dict[str, Any]] = reader.files(run)["files"]
    chosen = choose(listed, names or [], host)
    folder = Path(to)
    places = [(file, place(folder, file["name"])) for file in chosen]
    try:
        _bring(reader, run, places, folder)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
    if json_:
        print_json([{**file, "path": str(path)} for file, path in places])
    else:
        total = sum(file["size"] for file in chosen)
        console().print(f"{_count(chosen)}, {size(total)}, in {clean(folder.absolute())}.", soft_wrap=True)


def choose(listed: Sequence[dict[str, Any]], names: Sequence[str], host: str | None) -> list[dict[str, Any]]:
    """The files that are meant, each name once.

    Args:
        names: names, or patterns as of a shell; none for all.
        host: only of this host; None for any.

    Raises:
        CommandError: a name or pattern fits none, or there is nothing at all.
        UsageError: several hosts have different files of one name.
    """
    here = [file for file in listed if host in (None, file["host"])]
    of_host = f" of host {host}" if host is not None else ""
    if not here:
        raise CommandError(f"the run has no files{of_host}")
    for name in names:
        if not any(_fits(file, name) for file in here):
            raise CommandError(f"the run has no file {name!r}{of_host}")
    chosen: dict[str, dict[str, Any]] = {}
    for file in here:
        if names and not any(_fits(file, name) for name in names):
            continue
        other = chosen.setdefault(file["name"], file)
        if other["digest"] != file["digest"]:
            hosts = ", ".join(sorted(each["host"] for each in here if each["name"] == file["name"]))
            raise UsageError(f"several hosts have a file {file['name']!r}: choose one with --host ({hosts})")
    return list(chosen.values())


def _fits(file: dict[str, Any], name: str) -> bool:
    return bool(file["name"] == name or fnmatch.fnmatchcase(file["name"], name))


def place(folder: Path, name: str) -> Path:
    """Where a file of this name goes, which is never outside of the folder.

    Raises:
        CommandError: the name leads out of it, or a link that is there does.
    """
    try:
        path = folder / check_file_name(name)
    except BadFileName as error:
        raise CommandError(str(error)) from None
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise CommandError(f"a link in {folder} leads {name!r} out of it")
    return path


def _bring(reader: Reader, run: str, places: Iterable[tuple[dict[str, Any], Path]], folder: Path) -> None:
    places = list(places)
    err = console(stderr=True, redrawn=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    # One that is disabled prints an empty line at its end, in rich before 14.3.
    with progress if err.is_terminal else contextlib.nullcontext():
        whole = progress.add_task("all", total=sum(file["size"] for file, _ in places))
        before = 0
        for file, path in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            place(folder, file["name"])  # once more: the folder may be a link now
            task = progress.add_task(clean(file["name"]), total=file["size"])

            def show(offset: int, task: TaskID = task, before: int = before) -> None:
                progress.update(task, completed=offset)
                progress.update(whole, completed=before + offset)

            if not is_there(path, Content(file["size"], file["digest"])):
                reader.fetch(run, file, path, show)
            show(file["size"])
            before += file["size"]
            progress.update(task, visible=False)


def watch(reader: Reader, run: str, found: dict[str, Any]) -> dict[str, Any]:
    """Shows what arrives until nothing does; what there is then."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console(redrawn=True),
        transient=True,
    ) as progress:
        tasks: dict[tuple[str, str], TaskID] = {}
        while found["arriving"]:
            here = {(file["host"], file["name"]): file for file in found["arriving"]}
            for key, file in here.items():
                if key not in tasks:
                    tasks[key] = progress.add_task(clean(file["name"]), total=file["size"])
                progress.update(tasks[key], completed=file["offset"])
            for key in set(tasks) - set(here):
                progress.remove_task(tasks.pop(key))
            time.sleep(_LOOK_S)
            found = reader.files(run)
    return found


def _files_table(found: Sequence[dict[str, Any]], now: float) -> Any:
    return table(
        ("name", "size", "host", "rank", "modified", "digest"),
        (
            (
                file["name"],
                size(file["size"]),
                file["host"],
                file["rank"],
                age(file["modified"], now),
                file["digest"][:12],
            )
            for file in found
        ),
        right=("size", "rank", "modified"),
    )


def _arriving_table(arriving: Sequence[dict[str, Any]]) -> Any:
    return table(
        ("arriving", "here", "of", "host"),
        ((file["name"], size(file["offset"]), size(file["size"]), file["host"]) for file in arriving),
        right=("here", "of"),
    )


def _count(found: Sequence[object]) -> str:
    return f"{len(found)} file" + ("" if len(found) == 1 else "s")
