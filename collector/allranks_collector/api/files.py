"""Files over HTTP: the list, and each for download. What is in them is not trusted: none of it runs in our origin."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse

from allranks_collector import queries
from allranks_collector.api import models
from allranks_collector.api.answers import answer, refusal
from allranks_collector.api.context import ApiContext, Context
from allranks_collector.files import FileStore

# A browser saves it and does not show it; should one show it all the same, it does nothing and is nobody.
_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    # The content is named by the tag; the file's name may come to mean another one.
    "cache-control": "no-cache",
}

RunId = Annotated[str, InPath(description="the run's id, a beginning of it that no other run has, or its name")]

router = APIRouter(tags=["files"])


class _Content(FileResponse):
    # Each piece is a turn of the event loop, which has events to take in.
    chunk_size = 1024 * 1024


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
    found = _find(context, id, name, host, digest)
    path = FileStore(context.settings.files).blob(found["digest"])
    if not path.is_file():
        return refusal(404, f"the content of {found['name']!r} is not in {context.settings.files} any more")
    tag = f'"{found["digest"]}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={**_HEADERS, "etag": tag})
    return _Content(
        path,
        headers={**_HEADERS, "etag": tag},
        media_type="application/octet-stream",
        filename=PurePosixPath(found["name"]).name,
        content_disposition_type="attachment",
    )


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
