"""Why a run is as it is, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from allranks_collector import queries
from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context, OneAttempt, RunId
from allranks_collector.queries.why import why as reasons

router = APIRouter(tags=["health"])


class FateAnswer(BaseModel):
    rank: int
    host: str | None
    pid: int | None
    kind: str = Field(
        description="oom, crash, killed, device-oom, disk-full, worker, exception, exit; abort, silent, gone, hung,"
        " left; connection, collective, terminated"
    )
    cause: str = Field(description="what ended it, in one line")
    at: float | None = Field(description="in the collector's clock")
    last_step: int | None


class FollowerAnswer(FateAnswer):
    after: float = Field(description="seconds after the first failure, as far as is known")


class MetricAnswer(BaseModel):
    key: str
    step: int
    value: float | None


class GpuAnswer(BaseModel):
    index: int = Field(description="on its host")
    name: str
    uuid: str


class FirstAnswer(FateAnswer):
    local_rank: int | None
    exit_code: int | None
    signal: str | None
    exception: Any = Field(
        description="type, message and traceback, or null; from torchelastic's error file where the rank told none"
    )
    gpu: GpuAnswer | None = Field(description="the one that it computes on, if that is known")
    words: str | None = Field(description="the line of its console that tells most of its end")
    lost: list[int] = Field(description="where none of its host's ranks is heard, these ranks")
    metrics: list[MetricAnswer] = Field(description="its last values, those of the newest steps first")
    last_lines: list[dict[str, Any]] = Field(description="what it printed last, as in /logs")


class StandingAnswer(BaseModel):
    rank: int
    host: str | None
    last_step: int | None
    reason: str | None
    held: bool = Field(description="by something in itself: a signal, a debugger, C code")
    odd: bool = Field(description="its stack is elsewhere than those of most others")


class MissingAnswer(BaseModel):
    rank: int
    host: str | None = Field(description="where it should be, if that is sure")


class RollCallAnswer(BaseModel):
    world_size: int
    present: int = Field(description="how many have come")
    missing: list[MissingAnswer]
    text: str
    claims: list[str] = Field(description="what is odd about who the ranks say they are, one sentence each")


class WhyAnswer(BaseModel):
    run: str
    attempt: int | None
    outcome: str = Field(description="failed, stopped, unreachable, stalled, running, finished or expected")
    verdict: str = Field(description="in one line")
    lines: list[str] = Field(description="in five")
    first: FirstAnswer | None = Field(description="the first failure; null where nothing failed")
    followers: list[FollowerAnswer] = Field(description="those that ended badly after it, by time")
    stalled: list[StandingAnswer] = Field(
        description="the ranks that stand still, the held ones first, then the furthest behind, then the odd ones"
    )
    stands: str = Field(description="where those do, in one line, as far as they have been asked since; else empty")
    finished: list[int] = Field(description="the ranks that have ended well")
    last_step: int | None
    roll_call: RollCallAnswer


ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": WhyAnswer}}


@router.get("/api/runs/{id:path}/why", responses=ANSWERS)
def why(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    attempt: OneAttempt = None,
) -> Response:
    """Which rank of the attempt failed first and why, who followed, and who never came."""
    live = context.live
    with context.reading() as cursor:
        found = reasons(
            cursor,
            queries.find_run(cursor, id),
            attempt=attempt,
            live=live.series_stats(),
            last_seen=live.last_seen,
            orders=context.orders,
        )
    return answer(request, found)
