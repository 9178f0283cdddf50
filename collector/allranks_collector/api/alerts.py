"""Alerts over HTTP: those that were sent are events of their run (`kind=alerted`); here they are tried out."""

from __future__ import annotations

from anyio import from_thread
from fastapi import APIRouter, Request, Response

from allranks_collector.api import models
from allranks_collector.api.answers import answer, refusal
from allranks_collector.api.context import Context

router = APIRouter(tags=["service"])


@router.post("/api/alerts/test", responses={200: {"model": models.AlertTestAnswer}})
def test(request: Request, context: Context) -> Response:
    """Send an alert to every target, and answer when each has, within 10 s.

    409 where there is no target, or a test is under way.
    """
    found = [] if context.test_alerts is None else from_thread.run(context.test_alerts)
    if found is None:
        return refusal(409, "another test is under way: ask again in some seconds")
    if not found:
        return refusal(409, "nobody gets alerts: set alert_targets or alert_command")
    return answer(request, {"targets": found})
