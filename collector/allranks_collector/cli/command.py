"""`run`: any command as a rank of a run."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def run(
    words: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, after --.")],
    project: Annotated[str | None, typer.Option("--project", "-p", help="What the run belongs to.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What it is called.")] = None,
    group: Annotated[str | None, typer.Option("--group", "-g", help="What it is grouped with.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Its id; one that is known gets a further attempt.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be given several times.")] = None,
    notes: Annotated[str | None, typer.Option("--notes", help="A note for people.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Its rank, where no launcher tells it.")] = None,
    world_size: Annotated[int | None, typer.Option("--world-size", min=1, help="How many ranks there are.")] = None,
) -> None:
    """Run a command as a run: keep what it prints, its exit code or signal, and its system figures.

    Its code is not touched. A Python program in it that calls allranks.init is the same rank of the same run. It gets
    this command's streams and signals, and this command ends as it does.
    """
    told = {
        "--project": project,
        "--name": name,
        "--group": group,
        "--id": id_,
        "--notes": notes,
        "--rank": rank,
        "--world-size": world_size,
    }
    options = [text for flag, value in told.items() if value is not None for text in (flag, str(value))]
    options += [text for value in tag or [] for text in ("--tag", value)]
    sys.stdout.flush()
    # In the place of this process: what waits for the command must be as light as the SDK is.
    os.execv(sys.executable, [sys.executable, "-m", "allranks.run_command", *options, "--", *words])
