"""The shapes of answers, for the OpenAPI page. Answers are not validated against them: tests do that."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    error: str = Field(description="one clear line")


class RunAnswer(BaseModel):
    id: str
    project: str
    group: str | None
    name: str | None
    state: str = Field(
        description="expected, running, stalled, unreachable, finished, failed, killed, preempted or dead"
    )
    notes: str | None
    tags: list[str]
    config: dict[str, Any]
    summary: dict[str, Any] = Field(description="a number per metric, by its definition; entries set by hand win")
    world_size: int | None
    attempt: int | None = Field(description="the newest")
    ranks_seen: int = Field(description="ranks of the newest attempt that have come")
    created_at: float = Field(description="Unix seconds, as all times")
    last_seen: float | None
    last_step: int | None
    ended_at: float | None


class RunsAnswer(BaseModel):
    runs: list[RunAnswer]
    total: int = Field(description="how many there are without limit and offset")


class Attempt(BaseModel):
    attempt: int
    started_at: float
    launch: str


class DefinitionAnswer(BaseModel):
    name: str = Field(description="may end in *")
    step_metric: str | None
    summary: str | None


class RunDetails(RunAnswer):
    attempts: list[Attempt]
    definitions: list[DefinitionAnswer]


class Process(BaseModel):
    host: str | None
    pid: int | None
    state: str = Field(description="expected, running, stalled, unreachable, dead, failed or finished")
    last_step: int | None
    last_seen: float | None
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    signal: str | None
    reason: str | None
    exception: Any = Field(description="type, message and traceback, or null")
    dropped: int = Field(description="records that it could not keep")
    events: int = Field(description="records stored")


class RankAnswer(Process):
    rank: int
    attempt: int | None
    local_rank: int | None
    children: list[Process] = Field(description="processes that it forked and that log for it")
    rivals: list[Process] = Field(description="other processes that claim to be it")


class RanksAnswer(BaseModel):
    ranks: list[RankAnswer]
    claims: list[str] = Field(description="what is odd about who they say they are, one sentence each")


class KeyAnswer(BaseModel):
    key: str
    kind: str = Field(description="metric, system or object")
    ranks: int = Field(description="how many ranks have it")
    count: int
    last_step: int | None
    last: float | None = Field(description="the mean of the ranks' last values")
    min: float | None
    max: float | None
    step_metric: str | None
    summary: str


class KeysAnswer(BaseModel):
    keys: list[KeyAnswer]


class Curve(BaseModel):
    """Columns of one length. Per rank: time, value, min, max, count, nonfinite. Over ranks: mean, min, max …"""

    key: str
    attempt: int
    rank: int | None = None
    x: list[float]
    step: list[int]
    time: list[float] | None = None
    value: list[float | None] | None = None
    mean: list[float | None] | None = None
    min: list[float | None] | None = None
    max: list[float | None] | None = None
    min_rank: list[int | None] | None = None
    max_rank: list[int | None] | None = None
    count: list[int] | None = None
    nonfinite: list[int] | None = None


class CurvesAnswer(BaseModel):
    series: list[Curve]
    buckets: int
    x: str


class ObjectAnswer(BaseModel):
    key: str
    rank: int
    attempt: int
    step: int
    time: float
    value: Any


class ObjectsAnswer(BaseModel):
    objects: list[ObjectAnswer]


class EventAnswer(BaseModel):
    event: int
    time: float
    kind: str
    rank: int | None
    attempt: int | None
    host: str | None
    pid: int | None
    body: Any


class EventsAnswer(BaseModel):
    events: list[EventAnswer]


class LineAnswer(BaseModel):
    number: int | None = Field(description="names it in this collector; null while it is open")
    time: float = Field(description="when the tee that keeps them saw it, to 0.05 s")
    rank: int
    attempt: int
    host: str
    stream: str = Field(description="stdout or stderr; or note: what the collector says in this place")
    line: int = Field(description="its number in this stream of this process")
    text: str = Field(description="as people see it; with its colours (ESC [ … m), and no other escape sequence")
    open: bool = Field(description="it has not ended, and may change")
    ranks: list[int] | None = Field(None, description="folded: all that printed it, ascending")
    count: int | None = Field(None, description="folded: how many lines this is")


class LogsAnswer(BaseModel):
    lines: list[LineAnswer]
    next: str | None = Field(description="for `after`; null where nothing follows")
    previous: str | None = Field(description="for `before`; null where nothing comes before")
    newest: int = Field(description="for `since`")
    total: int | None = Field(description="how many lines there are, less open ones; null if not asked for")
    offset: int | None = Field(description="how many come before; null unless asked for by offset, at or step")


class FileAnswer(BaseModel):
    name: str = Field(description="a relative path, as on the host that it came from")
    host: str
    rank: int | None = Field(description="null where it is nobody's in particular")
    size: int
    digest: str = Field(description="SHA-256 of the newest version, in hex")
    modified: float
    stored: float
    versions: int = Field(description="contents of it that are kept; an older one is asked for by its digest")


class ArrivingAnswer(BaseModel):
    name: str
    host: str
    size: int
    offset: int = Field(description="how much of it is here")


class FilesAnswer(BaseModel):
    files: list[FileAnswer]
    arriving: list[ArrivingAnswer]
    total_bytes: int = Field(description="of the files in this list")


class ThreadAnswer(BaseModel):
    name: str
    id: int
    main: bool
    frames: list[tuple[str, int, str]] = Field(description="file, line, function; innermost first")


class StackAnswer(BaseModel):
    rank: int
    how: str = Field(description="asked: it answered; signal: its C code held the interpreter; none: no stacks")
    reason: str | None = Field(description="why there are none")
    threads: list[ThreadAnswer]


class StackGroupAnswer(BaseModel):
    text: str
    where: str = Field(description="the wait, the file and the line; or why there are no stacks")
    ranks: list[int]
    answered: bool
    wait: str
    function: str
    file: str
    line: int


class StacksAnswer(BaseModel):
    asked_at: float | None = Field(description="null where nobody has been asked")
    text: str = Field(description="all groups in one line")
    groups: list[StackGroupAnswer] = Field(description="the largest first; each rank is in one")
    ranks: list[StackAnswer]


class AlertTarget(BaseModel):
    name: str
    sent: bool
    problem: str = Field(description="why it was not; empty where it was")


class AlertTestAnswer(BaseModel):
    targets: list[AlertTarget]
