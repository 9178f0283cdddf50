"""Who the ranks of a run wait for, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from allranks_collector import queries
from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context, OneAttempt, RunId
from allranks_collector.queries.stragglers import MAX_RANKS, list_stragglers

router = APIRouter(tags=["health"])


class StragglerAnswer(BaseModel):
    rank: int
    host: str | None
    lost_s: float = Field(description="seconds of work beyond the median rank's, for which the others waited")
    rank_hours: float = Field(description="that, for all ranks")
    slow: bool = Field(description="it costs more than chance does")
    section: str | None = Field(description="the one that costs most")
    sections: dict[str, float] = Field(description="seconds by section, where it is slower")
    worst_steps: list[int] | None = Field(description="the first and last of the steps that cost most")


class EarlierAnswer(BaseModel):
    run: str
    lost_s: float


class SlowHostAnswer(BaseModel):
    host: str
    lost_s: float = Field(description="of its slowest rank in this run; 0 where none is slow")
    earlier: list[EarlierAnswer] = Field(description="runs before this one in which it had slow ranks")


class StragglersAnswer(BaseModel):
    attempt: int | None
    measured: int = Field(description="how many ranks have said what their time goes to")
    seconds: float = Field(description="the time that was compared")
    lost_s: float = Field(description="of it, what waiting for the slowest rank cost")
    rank_hours: float = Field(description="that, for all ranks")
    ranks: list[StragglerAnswer] = Field(description="slower than the median; who costs most first")
    hosts: list[SlowHostAnswer] = Field(description="slow now, or in earlier runs; those most often slow first")


ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": StragglersAnswer}}


@router.get("/api/runs/{id:path}/stragglers", responses=ANSWERS)
def stragglers(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    attempt: OneAttempt = None,
    limit: Annotated[int, Query(ge=1, le=MAX_RANKS, description="at most so many ranks")] = 100,
) -> Response:
    """Which ranks of one attempt cost the others time before a collective, and in which section."""
    with context.reading() as cursor:
        found = list_stragglers(cursor, queries.find_run(cursor, id), attempt=attempt, limit=limit)
    return answer(request, found)
