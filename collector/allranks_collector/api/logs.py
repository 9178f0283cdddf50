"""What the ranks printed, over HTTP: as pages, and as one text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer
from allranks_collector.api.context import ApiContext, Context, RunId
from allranks_collector.escapes import shown
from allranks_collector.folding import fold_stream, origin

if TYPE_CHECKING:
    from collections.abc import Iterator

# How many lines of a text are in memory at once, beside those that wait for their like.
TEXT_LINES = 5000


def _filters(
    ranks: Annotated[str | None, Query(description="ranks and ranges, as in 0-3,7; all if absent")] = None,
    stream: Annotated[str | None, Query(description="stdout or stderr; both if absent")] = None,
    attempt: Annotated[str | None, Query(description="a number, or all; the newest if absent")] = None,
    grep: Annotated[
        str | None, Query(description="a regular expression (RE2) on the text without its colours")
    ] = None,
    begin: Annotated[float | None, Query(description="the first time wanted")] = None,
    end: Annotated[float | None, Query(description="the first time not wanted")] = None,
    odd: Annotated[
        bool, Query(description="only lines that one rank alone has printed; numbers are taken as equal")
    ] = False,
) -> queries.LogRequest:
    """Which lines are wanted, wherever lines are asked for."""
    return queries.LogRequest(
        ranks=queries.parse_ranks(ranks),
        stream=stream,
        attempt=queries.parse_attempt(attempt),
        grep=grep,
        begin=begin,
        end=end,
        odd=odd,
    )


Filters = Annotated[queries.LogRequest, Depends(_filters)]
router = APIRouter(tags=["logs"])


@router.get("/api/runs/{id:path}/logs", responses={200: {"model": models.LogsAnswer}})
def logs(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    filters: Filters,
    after: Annotated[str | None, Query(description="on from `next` of an answer before; 0 for the beginning")] = None,
    before: Annotated[str | None, Query(description="the last before `previous` of an answer before")] = None,
    since: Annotated[int | None, Query(description="what has arrived after `newest` of an answer before")] = None,
    offset: Annotated[int | None, Query(description="from the line on that has so many before it, by time")] = None,
    at: Annotated[int | None, Query(description="with the line of this number in the middle")] = None,
    step: Annotated[
        int | None, Query(description="with the time in the middle at which these ranks logged this step")
    ] = None,
    fold: Annotated[
        bool, Query(description="identical lines of different ranks, within 10 s on this page, are one")
    ] = False,
    total: Annotated[bool, Query(description="count all lines")] = False,
    limit: int = 1000,
) -> Response:
    """Lines that the ranks printed, merged by time: the newest, or on from a place, of which there may be one.

    To read all of it begin with `after=0`, and go on with `after` set to each answer's `next`; backwards with
    `before` and `previous`. To follow, ask for the newest, and then, at each note of the type `logs` in the stream,
    for `since` set to the last answer's `newest`. A line with `open` has not ended: it is given as it stands, and
    again later. Of very long lines fewer than `limit` come at once.
    """
    wanted = replace(
        filters,
        after=after,
        before=before,
        since=since,
        offset=offset,
        at=at,
        step=step,
        fold=fold,
        total=total,
        limit=limit,
    )
    with context.reading() as cursor:
        found = queries.list_logs(cursor, queries.find_run(cursor, id), wanted, context.orders)
    return answer(request, found)


@router.get(
    "/api/runs/{id:path}/logs.txt",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "The lines as one text."}},
)
def text(
    context: Context,
    id: RunId,  # noqa: A002
    filters: Filters,
    fold: Annotated[bool, Query(description="identical lines of different ranks, within 10 s, are one")] = False,
) -> Response:
    """All lines as one text for download, by time: `HOST:RANK text`, with no escape sequence in it."""
    wanted = replace(filters, after="0", limit=TEXT_LINES)
    with context.reading() as cursor:
        run = queries.find_run(cursor, id)
    pages = _pages(context, run, wanted)
    # What is wrong with the question comes out before the answer has begun.
    first = next(pages)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", run.id).lstrip(".") or "run"
    headers = {"content-disposition": f'attachment; filename="{name}.log.txt"', "cache-control": "no-store"}
    return StreamingResponse(_texts(first, pages, is_folded=fold), 200, headers, "text/plain; charset=utf-8")


def _pages(context: ApiContext, run: queries.RunRef, wanted: queries.LogRequest) -> Iterator[list[dict[str, Any]]]:
    """All lines, page by page: between two, nothing of the database is held."""
    after: str | None = wanted.after
    while after is not None:
        with context.reading() as cursor:
            page = queries.list_logs(cursor, run, replace(wanted, after=after), context.orders)
        yield page["lines"]
        after = page["next"]


def _texts(first: list[dict[str, Any]], rest: Iterator[list[dict[str, Any]]], *, is_folded: bool) -> Iterator[str]:
    """The lines as text, a page at a time."""

    def lines() -> Iterator[dict[str, Any]]:
        yield from first
        for page in rest:
            yield from page

    gathered: list[str] = []
    for line in fold_stream(lines()) if is_folded else lines():
        gathered.append(f"{shown(origin(line), colours=False)} {shown(line['text'], colours=False)}\n")
        if len(gathered) == TEXT_LINES:
            yield "".join(gathered)
            gathered.clear()
    yield "".join(gathered)
