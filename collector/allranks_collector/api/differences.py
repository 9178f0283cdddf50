"""What differs between the ranks of a run, over HTTP."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from allranks_collector import queries
from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context, OneAttempt, RunId
from allranks_collector.queries.differences import list_differences

router = APIRouter(tags=["health"])


class GroupAnswer(BaseModel):
    value: str | None = Field(description="as it is shown; null where these ranks do not have it")
    count: int = Field(description="how many ranks")
    ranks: str = Field(description="which, as in 0-3,7")
    hosts: list[str] = Field(description="where these are all the ranks of some hosts")


class DifferenceAnswer(BaseModel):
    section: str = Field(description="git, packages, python, torch, gpu, clock, env, config or host")
    title: str
    name: str
    each: str | None = Field(description="rank or host, where every one has a value of its own")
    groups: list[GroupAnswer] = Field(description="the largest first")
    text: str


class DivergenceAnswer(BaseModel):
    name: str
    kind: str = Field(description="agree, for what the program said must agree; or metric")
    step: int = Field(description="the first at which ranks differ")
    groups: list[GroupAnswer]
    text: str


class DifferencesAnswer(BaseModel):
    attempt: int | None
    ranks: int = Field(description="how many have come")
    told: int = Field(description="of those, how many have said what surrounds them")
    differences: list[DifferenceAnswer] = Field(description="the most telling first")
    diverged: list[DivergenceAnswer] = Field(description="the earliest first")
    compared: list[str] = Field(description="the names of all values that should agree")


ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": DifferencesAnswer}}


@router.get("/api/runs/{id:path}/differences", responses=ANSWERS)
def differences(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    attempt: OneAttempt = None,
) -> Response:
    """What differs between the ranks of one attempt, and values that should agree and do not."""
    with context.reading() as cursor:
        found = list_differences(cursor, queries.find_run(cursor, id), attempt=attempt)
    return answer(request, found)
