"""Runs over HTTP: each handler takes a question apart, asks the database, and answers. They run in worker threads."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from anyio import from_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer, refusal
from allranks_collector.api.context import Context, OneAttempt, RunId

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from pydantic import BaseModel

# The states of a run with ranks that still send.
LIVE_STATES = ("running", "stalled")
# What a file is sent in, in bytes.
CHUNK_BYTES = 256 * 1024

Ranks = Annotated[str | None, Query(description="ranks and ranges, as in 0-3,7; all if absent")]
StepMin = Annotated[int | None, Query(description="first step wanted")]
StepMax = Annotated[int | None, Query(description="last step wanted, inclusive")]
Buckets = Annotated[int, Query(description="at most so many points a curve; 0 for every point")]

router = APIRouter(tags=["runs"])


def _answers(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


@router.get("/api/runs", responses=_answers(models.RunsAnswer))
def runs(
    request: Request,
    context: Context,
    project: Annotated[str | None, Query(description="only this project's")] = None,
    group: Annotated[str | None, Query(description="only this group's")] = None,
    state: Annotated[str | None, Query(description="only those in this state")] = None,
    limit: int = 100,
    offset: int = 0,
) -> Response:
    """The runs, newest first."""
    with context.reading() as cursor:
        found = queries.list_runs(
            cursor,
            project=project,
            group=group,
            state=state,
            limit=limit,
            offset=offset,
            live=context.live.series_stats(),
            last_seen=context.live.last_seen,
        )
    return answer(request, found)


@router.get("/api/runs/{id:path}/ranks", responses=_answers(models.RanksAnswer))
def ranks(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    attempt: OneAttempt = None,
) -> Response:
    """The ranks of one attempt, in order. Those that have not come yet are `expected`."""
    with context.reading() as cursor:
        run = queries.find_run(cursor, id)
        found = queries.list_ranks(cursor, run, attempt=attempt, last_seen=context.live.last_seen)
        claims = queries.list_claims(cursor, run, attempt=attempt)
    return answer(request, {"ranks": found, "claims": claims})


@router.get("/api/runs/{id:path}/keys", responses=_answers(models.KeysAnswer))
def keys(request: Request, context: Context, id: RunId) -> Response:  # noqa: A002
    """The keys of the run with their figures, each over the newest attempt that has it."""
    with context.reading() as cursor:
        found = queries.list_keys(cursor, queries.find_run(cursor, id), live=context.live.series_stats())
    return answer(request, {"keys": found})


@router.get("/api/runs/{id:path}/metrics", responses=_answers(models.CurvesAnswer))
def metrics(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    key: Annotated[list[str] | None, Query(description="once per metric; all if absent")] = None,
    ranks: Ranks = None,
    attempt: Annotated[
        str | None, Query(description="a number, or all; if absent, older ones end where newer ones went on")
    ] = None,
    step_min: StepMin = None,
    step_max: StepMax = None,
    buckets: Buckets = queries.DEFAULT_BUCKETS,
    reduce: Annotated[str, Query(description="none: a curve per rank; ranks: one over all ranks")] = "none",
    x: Annotated[str, Query(description="step, time, or a metric to join by rank and step")] = "step",
) -> Response:
    """Curves of metrics, thinned to buckets that hold still while the run grows.

    Each curve is columns of one length. `x` and `step` are of the bucket's first point; `count` counts finite values,
    `nonfinite` the others, which are part of nothing else. With `reduce=none` there are time, value (the mean), min
    and max; with `reduce=ranks` mean, min, max, and the ranks that had them. `buckets=0` gives every point: time and
    value. With `x=time`, x is seconds since the run was created.

    Without `attempt`, what a run did again after a restart is there once, as its newest attempt did it: one curve, or
    one for each attempt with `buckets=0`.
    """
    wanted = queries.CurveRequest(
        key,
        ranks=queries.parse_ranks(ranks),
        attempt=queries.parse_attempt(attempt),
        step_min=step_min,
        step_max=step_max,
        buckets=buckets,
        reduce=reduce,
        x=x,
    )
    with context.reading() as cursor:
        found = queries.metrics(cursor, queries.find_run(cursor, id), wanted)
    return answer(request, found)


@router.get("/api/runs/{id:path}/system", responses=_answers(models.CurvesAnswer))
def system(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    key: Annotated[list[str] | None, Query(description="once per figure; all if absent")] = None,
    ranks: Ranks = None,
    attempt: Annotated[str | None, Query(description="a number, or all; each key's newest if absent")] = None,
    buckets: Buckets = queries.DEFAULT_BUCKETS,
    reduce: Annotated[str, Query(description="none: a curve per rank; ranks: one over all ranks")] = "none",
) -> Response:
    """Curves of the figures of processes and hosts, as those of metrics, by time: x is seconds since creation."""
    wanted = queries.CurveRequest(
        key,
        kind="system",
        ranks=queries.parse_ranks(ranks),
        attempt=queries.parse_attempt(attempt),
        buckets=buckets,
        reduce=reduce,
        x="time",
    )
    with context.reading() as cursor:
        found = queries.metrics(cursor, queries.find_run(cursor, id), wanted)
    return answer(request, found)


@router.get("/api/runs/{id:path}/objects", responses=_answers(models.ObjectsAnswer))
def objects(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    key: str | None = None,
    ranks: Ranks = None,
    step_min: StepMin = None,
    step_max: StepMax = None,
    limit: int = 1000,
) -> Response:
    """Text, histograms and other values that are not numbers: the newest `limit`, by key, attempt, rank and step."""
    with context.reading() as cursor:
        found = queries.list_objects(
            cursor,
            queries.find_run(cursor, id),
            key=key,
            ranks=queries.parse_ranks(ranks),
            step_min=step_min,
            step_max=step_max,
            limit=limit,
        )
    return answer(request, {"objects": found})


@router.get("/api/runs/{id:path}/events", responses=_answers(models.EventsAnswer))
def events(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    after: Annotated[int | None, Query(description="those after this event; the newest if absent")] = None,
    limit: int = 1000,
    kind: Annotated[str | None, Query(description="only of this kind")] = None,
) -> Response:
    """What happened to the run's writers, in order: opened, closed, state, dropped, gap, broken …"""
    with context.reading() as cursor:
        run = queries.find_run(cursor, id)
        found = queries.list_events(cursor, run, after=after, limit=limit, kind=kind)
    return answer(request, {"events": found})


@router.get("/api/runs/{id:path}/export", response_class=StreamingResponse)
def export(
    context: Context,
    id: RunId,  # noqa: A002
    what: Annotated[str, Query(description=" | ".join(queries.WHAT))] = "metrics",
    format: Annotated[str, Query(description=" | ".join(queries.FORMATS))] = "jsonl",  # noqa: A002
) -> Response:
    """Download one whole table. metrics and system: rows of key, rank, attempt, step, time, value."""
    folder = Path(tempfile.mkdtemp(prefix="allranks-export-", dir=context.store.path.parent))
    try:
        path = folder / "table"
        with context.reading() as cursor:
            run = queries.find_run(cursor, id)
            queries.export(cursor, run, what, format, path, live=context.live.series_stats())
        file = path.open("rb")
    finally:
        # The open file outlives its name: nothing is left behind, however the download ends.
        shutil.rmtree(folder, ignore_errors=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run.id) + f"-{what}.{format}"
    headers = {
        "content-length": str(os.fstat(file.fileno()).st_size),
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
    }
    return StreamingResponse(_chunks(file), headers=headers, media_type=queries.MEDIA_TYPES[format])


# Last, because they match whatever the routes above do not: names may have slashes in them.
@router.get("/api/runs/{id:path}", responses=_answers(models.RunDetails))
def run(request: Request, context: Context, id: RunId) -> Response:  # noqa: A002
    """One run: as in the list, with its attempts and the definitions of its metrics."""
    with context.reading() as cursor:
        found = queries.get_run(
            cursor,
            queries.find_run(cursor, id),
            live=context.live.series_stats(),
            last_seen=context.live.last_seen,
        )
    return answer(request, found)


@router.delete("/api/runs/{id:path}")
def remove(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    force: Annotated[bool, Query(description="remove it even while it runs")] = False,
) -> Response:
    """Remove the run and everything that was stored of it. 409 while it is running or stalled, unless forced."""
    with context.reading() as cursor:
        found = queries.find_run(cursor, id)
        state = queries.state_of(cursor, found)
    if state in LIVE_STATES and not force:
        return refusal(409, f"the run {found.id} is {state}: end it first, or say force=true")
    (context.remove_run or context.store.remove_run)(found.run)
    from_thread.run_sync(context.live.hub.publish, "runs", found.id, {"removed": True})
    return answer(request, {"removed": found.id})


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")
