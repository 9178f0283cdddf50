"""What the ranks printed, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context

RunId = Annotated[str, InPath(description="the run's id, a beginning of it that no other run has, or its name")]

router = APIRouter(tags=["logs"])


@router.get("/api/runs/{id:path}/logs", responses={200: {"model": models.LogsAnswer}})
def logs(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    ranks: Annotated[str | None, Query(description="ranks and ranges, as in 0-3,7; all if absent")] = None,
    stream: Annotated[str | None, Query(description="stdout or stderr; both if absent")] = None,
    attempt: Annotated[str | None, Query(description="a number, or all; the newest if absent")] = None,
    after: Annotated[str | None, Query(description="on from `next` of an answer before; 0 for the beginning")] = None,
    since: Annotated[int | None, Query(description="what has arrived after `newest` of an answer before")] = None,
    limit: int = 1000,
) -> Response:
    """Lines that the ranks printed, merged by time: the newest, or on from a place.

    To read all of it begin with `after=0`, and go on with `after` set to each answer's `next`. To follow, ask for
    the newest, and then, at each note of the type `logs` in the stream, for `since` set to the last answer's
    `newest`. A line with `open` has not ended: it is given as it stands, and again later.
    """
    wanted = queries.LogRequest(
        ranks=queries.parse_ranks(ranks),
        stream=stream,
        attempt=queries.parse_attempt(attempt),
        after=after,
        since=since,
        limit=limit,
    )
    with context.reading() as cursor:
        found = queries.list_logs(cursor, queries.find_run(cursor, id), wanted)
    return answer(request, found)
