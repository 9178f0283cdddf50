"""The application: routes, guard and errors put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from allranks_bus.version import __version__
from allranks_collector.api import (
    alerts,
    attempts,
    differences,
    files,
    logs,
    models,
    pages,
    runs,
    service,
    stacks,
    stragglers,
    stream,
    why,
)
from allranks_collector.api.answers import add_error_handlers
from allranks_collector.api.guard import Guard

if TYPE_CHECKING:
    from allranks_collector.api.context import ApiContext

_DESCRIPTION = """What the collector of allranks has stored, and what happens now.

Times are Unix seconds. Numbers that are not finite are null. An error is `{"error": "one clear line"}`.
"""


def create_app(context: ApiContext) -> FastAPI:
    """The ASGI application that serves the API and the dashboard from this context."""
    app = FastAPI(
        title="allranks",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        # Their pages load scripts from elsewhere; /docs is our own.
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": models.Error, "description": "What was wrong, in one line."}},
        # A redirect to the path with a slash would hide a mistyped path.
        redirect_slashes=False,
    )
    app.state.context = context
    # Files before runs: what a file is called must not be taken for a question about its run. And runs after all
    # that ends otherwise: their names may have slashes in them.
    for part in (files, logs, stacks, differences, stragglers, attempts, why, runs, stream, service, alerts, pages):
        app.include_router(part.router)
    add_error_handlers(app)
    app.add_middleware(Guard, allowed_hosts=(context.settings.host, *context.settings.allowed_hosts))
    return app
