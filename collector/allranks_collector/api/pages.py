"""The dashboard's files, and a reference page of the API that needs nothing from elsewhere."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

WEB = Path(__file__).resolve().parent.parent / "web"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".json": "application/json",
}

router = APIRouter(include_in_schema=False)


def file_answer(request: Request, root: Path, name: str) -> Response:
    """A file below `root`, or 304 where the browser has it. Its tag is its content's: an upgrade shows at once."""
    path = (root / name).resolve()
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None or not path.is_relative_to(root.resolve()) or not path.is_file():
        raise HTTPException(404, f"there is no file {name}")
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route("/runs/{rest:path}", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    """The dashboard; its own routes are the browser's matter."""
    return file_answer(request, WEB, "index.html")


@router.api_route("/static/{name:path}", methods=["GET", "HEAD"])
def static(request: Request, name: str) -> Response:
    """A file of the dashboard."""
    return file_answer(request, WEB, name)


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API's reference as one plain page."""
    return Response(_reference(request.app), media_type="text/html; charset=utf-8")


@lru_cache(maxsize=1)
def _reference(app: FastAPI) -> str:
    schema = app.openapi()
    sections = [
        _section(method, path, operation)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:15px/1.5 system-ui;max-width:52rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
        "code{font-size:90%}h2{font-size:1rem;margin:2rem 0 .3rem}p{white-space:pre-line;margin:.3rem 0}</style>"
        f"<h1>{title}</h1><p>{escape(schema['info']['description'])}</p>"
        f'<p>As OpenAPI: <a href="{app.openapi_url}">{app.openapi_url}</a></p>{"".join(sections)}</html>'
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(parameter['name'])}</code> {escape(parameter.get('description', ''))}</li>"
        for parameter in operation.get("parameters", [])
    )
    described = escape(operation.get("description", operation.get("summary", "")))
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{described}</p><ul>{parameters}</ul>"
