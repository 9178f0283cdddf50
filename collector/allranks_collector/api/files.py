"""Files over HTTP: the list, and each for download. What is in them is not trusted: none of it runs in our origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer, refusal
from allranks_collector.api.context import ApiContext, Context, RunId
from allranks_collector.files import FileStore

# A browser saves it and does not show it; should one show it all the same, it does nothing and is nobody.
_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    # The content is named by the tag; the file's name may come to mean another one.
    "cache-control": "no-cache",
}

# Between the row and the content a newer version may come to both places.
_TRIES = 3
_RANGE = re.compile(rb"bytes=(\d{1,19}-\d{0,19}|-\d{1,19})")


router = APIRouter(tags=["files"])


class _Content(FileResponse):
    """Sends an open file to its end, also where newer versions take its place meanwhile and it is removed."""

    # Each piece is a turn of the event loop, which has events to take in.
    chunk_size = 1024 * 1024

    def __init__(self, file: BinaryIO, headers: Mapping[str, str], filename: str) -> None:
        self._file = file
        super().__init__(
            # The file itself, whether or not it still has a name.
            f"/proc/self/fd/{file.fileno()}",
            headers=headers,
            media_type="application/octet-stream",
            filename=filename,
            content_disposition_type="attachment",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            # Several ranges, and what is none, are as good as not asked for (RFC 9110, 14.2): a header with thousands
            # of them would hold up the event loop.
            headers = [
                (name, value) for name, value in scope["headers"] if name != b"range" or _RANGE.fullmatch(value)
            ]
            await super().__call__({**scope, "headers": headers}, receive, send)


# Before the list, because a file may be called x/files.
@router.get(
    "/api/runs/{id:path}/files/{name:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, 206: {"description": "The range asked for."}},
)
def download(
    request: Request,
    context: Context,
    id: RunId,  # noqa: A002
    name: Annotated[str, InPath(description="as in the list")],
    host: Annotated[str | None, Query(description="whose; needed where hosts differ")] = None,
    digest: Annotated[str | None, Query(description="of an older version; the newest if absent")] = None,
) -> Response:
    """Download a file, or ranges of it. Its ETag is its digest."""
    files = FileStore(context.settings.files)
    tries_left = _TRIES
    while True:
        found = _find(context, id, name, host, digest)
        headers = {**_HEADERS, "etag": f'"{found["digest"]}"'}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        try:
            return _Content(open(files.blob(found["digest"]), "rb"), headers, PurePosixPath(found["name"]).name)
        except FileNotFoundError:
            tries_left -= 1
            if not tries_left:
                return refusal(404, f"the content of {found['name']!r} is not in {files.root} any more")


def _find(context: ApiContext, run: str, name: str, host: str | None, digest: str | None) -> dict[str, Any]:
    """The file. Both the run and the name may have "/files/" in them: the first cut that gives a run is the one."""
    parts = f"{run}/files/{name}".split("/files/")
    with context.reading() as cursor:
        for cut in range(1, len(parts) - 1):
            try:
                found = queries.find_run(cursor, "/files/".join(parts[:cut]))
            except queries.RunNotFound:
                continue
            return queries.find_file(cursor, found, "/files/".join(parts[cut:]), host=host, digest=digest)
        return queries.find_file(cursor, queries.find_run(cursor, run), name, host=host, digest=digest)


@router.get("/api/runs/{id:path}/files", responses={200: {"model": models.FilesAnswer}})
def files(request: Request, context: Context, id: RunId) -> Response:  # noqa: A002
    """The run's files, the newest version of each, and those that are on their way."""
    with context.reading() as cursor:
        run = queries.find_run(cursor, id)
        found = queries.list_files(cursor, run)
    total = sum(file["size"] for file in found)
    return answer(request, {"files": found, "arriving": context.live.arriving(run.id), "total_bytes": total})
