"""Stacks over HTTP: where the ranks stood when they were last asked, and to ask them now."""

from __future__ import annotations

from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Query, Request, Response

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer, refusal
from allranks_collector.api.context import Context, RunId
from allranks_collector.queries.stacks import newest_stacks

Ranks = Annotated[str | None, Query(description="ranks and ranges, as in 0-3,7; all if absent")]
Threads = Annotated[bool, Query(description="false leaves out the threads: small, also of a thousand ranks")]

router = APIRouter(tags=["health"])


@router.get("/api/runs/{id:path}/stacks", responses={200: {"model": models.StacksAnswer}})
def stacks(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    ranks: Ranks = None,
    threads: Threads = True,
) -> Response:
    """The stacks of the ranks when they were last asked, and the groups that all of them form by where they stood.

    They are asked by themselves when most of them stand still.
    """
    wanted = queries.parse_ranks(ranks)
    with context.reading() as cursor:
        found = newest_stacks(cursor, queries.find_run(cursor, id), with_threads=threads, ranks=wanted)
    return answer(request, found)


@router.post("/api/runs/{id:path}/stacks", responses={200: {"model": models.StacksAnswer}})
def ask(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    ranks: Ranks = None,
    threads: Threads = True,
) -> Response:
    """Ask the ranks where they stand, and answer when those that can have answered: in some seconds.

    409 where none of them lives.
    """
    with context.reading() as cursor:
        run = queries.find_run(cursor, id)
    wanted = queries.parse_ranks(ranks)
    if context.ask_stacks is None or from_thread.run(context.ask_stacks, run.run, run.id, wanted) is None:
        return refusal(409, f"no rank of the run {run.id} is there to be asked")
    return stacks(request, context, id, ranks, threads)
