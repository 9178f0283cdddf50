"""Server-sent events (WHATWG HTML, §9.2): what changes, as it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import anyio
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from allranks_collector.api.answers import json_bytes
from allranks_collector.api.context import Context
from allranks_collector.queries import find_run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from allranks_collector.live import Hub

# Proxies close connections that are silent for longer than a minute or so.
KEEP_ALIVE_S = 15.0

router = APIRouter(tags=["stream"])


@router.get(
    "/api/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A stream of server-sent events."}},
)
async def stream(
    context: Context, run: Annotated[str | None, Query(description="only this run (id, prefix or name)")] = None
) -> StreamingResponse:
    """Follow what changes, as server-sent events: `runs`, `ranks`, `metrics`, `events`, `files`, `logs`, and
    `stacks` where ranks have been asked where they stand.

    Data is JSON with at least `run`, the run's id; `metrics` also says `last_step` and which `keys` moved (null:
    any), at most four times a second per run. A note says that something changed: ask for what it is.
    """
    run_id = None if run is None else await anyio.to_thread.run_sync(_id_of, context, run)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(context.live.hub, run_id), media_type="text/event-stream", headers=headers)


def _id_of(context: Context, run: str) -> str:
    with context.reading() as cursor:
        return find_run(cursor, run).id


async def _events(hub: Hub, run: str | None) -> AsyncGenerator[bytes]:
    async with hub.subscribe(run) as viewer:
        # An answer at once: the browser's stream counts as open only with the first bytes.
        yield b": allranks\n\n"
        while True:
            note = None
            with anyio.move_on_after(KEEP_ALIVE_S):
                try:
                    note = await viewer.receive()
                except anyio.EndOfStream:
                    return
            if note is None:
                yield b": keep-alive\n\n"
            else:
                yield b"event: %s\ndata: %s\n\n" % (note.topic.encode(), json_bytes(note.data))
