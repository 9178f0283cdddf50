"""The attempts of a run, its goodput, and its ranks' states over time, over HTTP."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from allranks_collector import queries
from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context, RunId
from allranks_collector.queries.attempts import list_attempts
from allranks_collector.queries.timeline import timeline as states_over_time

router = APIRouter(tags=["health"])


class AttemptAnswer(BaseModel):
    attempt: int
    began_ns: int = Field(description="in the collector's clock, as all times here")
    ended_ns: int | None = Field(description="null while any of its ranks lives")
    state: str = Field(description="how it does, or what became of it: as the state of a run")
    first_step: int | None = Field(description="null before the first")
    last_step: int | None
    resumed_from: int | None = Field(description="its first step, where that is not the run's; null: the beginning")
    recomputed: int = Field(description="steps that had been reached before")
    why: str | None = Field(description="the verdict in one line; null where it lives or finished")


class GoodputAnswer(BaseModel):
    """Seconds; all but the first two sum up to the total."""

    fraction: float | None = Field(description="productive of total; null before the first step")
    total_s: float = Field(description="from the first attempt's start to the end, or to now")
    productive_s: float = Field(description="on steps that no attempt had reached before")
    init_s: float = Field(description="from each attempt's start to its first step")
    stalled_s: float = Field(description="without a step, until it went on")
    detection_s: float = Field(description="from the last step of an attempt that ended badly to its end")
    restart_s: float = Field(description="from the end of an attempt to the start of the next")
    recomputation_s: float = Field(description="on steps that had been reached before")


class AttemptsAnswer(BaseModel):
    attempts: list[AttemptAnswer]
    goodput: GoodputAnswer


class StatesAnswer(BaseModel):
    rank: int
    attempt: int
    host: str | None = Field(description="null where it has not come")
    spans: list[tuple[int, int, int]] = Field(description="place in `states`, from, until: in order, without gaps")


class TimelineAnswer(BaseModel):
    from_ns: int = Field(description="in the collector's clock, as all times here")
    until_ns: int = Field(description="now; a little after the end where all ranks have ended")
    states: list[str]
    ranks: list[StatesAnswer] = Field(description="by rank and attempt")


@router.get("/api/runs/{id:path}/attempts", responses={200: {"model": AttemptsAnswer}})
def attempts(request: Request, context: Context, id: RunId) -> Response:  # noqa: A002
    """What each attempt of the run did: where it went on, what it did again, why it ended; and the run's goodput."""
    live = context.live
    with context.reading() as cursor:
        found: dict[str, Any] = list_attempts(
            cursor,
            queries.find_run(cursor, id),
            live=live.series_stats(),
            last_seen=live.last_seen,
            now_ns=time.time_ns(),
        )
    return answer(request, found)


@router.get("/api/runs/{id:path}/timeline", responses={200: {"model": TimelineAnswer}})
def timeline(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    attempt: Annotated[str | None, Query(description="a number, or all; the newest if absent")] = None,
) -> Response:
    """In which state each rank was when."""
    wanted = queries.parse_attempt(attempt)
    with context.reading() as cursor:
        found = states_over_time(cursor, queries.find_run(cursor, id), attempt=wanted, now_ns=time.time_ns())
    return answer(request, found)
