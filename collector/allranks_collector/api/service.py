"""The service itself: is it alive, is it ready, how does it do."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from allranks_collector.api.answers import answer
from allranks_collector.api.context import Context

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

router = APIRouter(tags=["service"])


@router.get("/api/collector")
def collector(request: Request, context: Context) -> Response:
    """How the collector does: version, instance, addresses, live writers, what is pending and what is stored.

    `settings` gives every setting's value and where it came from.
    """
    store = context.store
    ready, reason = context.live.ready()
    own = {
        "instance": store.instance.hex(),
        "database": {"path": str(store.path), "bytes": store.size_bytes()},
        "viewers": context.live.hub.viewers,
        "ready": ready,
        "reason": reason,
        "settings": context.settings.described(),
    }
    return answer(request, own | dict(context.live.status()))


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 for as long as the event loop lives."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Events are not stored at present; `reason` says why."}})
def readyz(request: Request, context: Context) -> Response:
    """200 while events are taken and stored, else 503 with the reason."""
    ready, reason = context.live.ready()
    return answer(request, {"ready": ready, "reason": reason}, 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {OPENMETRICS: {}}}})
def own_metrics(context: Context) -> Response:
    """The collector's own figures as OpenMetrics text, for Prometheus."""
    figures = {"viewers": float(context.live.hub.viewers), "database_bytes": float(context.store.size_bytes())}
    return Response(openmetrics(figures | dict(context.live.counters())), media_type=OPENMETRICS)


def openmetrics(figures: Mapping[str, float], prefix: str = "allranks_") -> str:
    """Figures as OpenMetrics 1.0 text. Names that end in `_total` are counters, the others gauges.

    Args:
        figures: by name; labels may follow in braces, as in `dropped_total{reason="full"}`.
        prefix: put before each name that does not have it.
    """
    families: dict[str, list[str]] = {}
    for name, value in figures.items():
        full = name if name.startswith(prefix) else prefix + name
        family = full.partition("{")[0]
        families.setdefault(family, []).append(f"{full} {value:.17g}")
    lines: list[str] = []
    for family, samples in families.items():
        kind = "counter" if family.endswith("_total") else "gauge"
        lines += [f"# TYPE {family.removesuffix('_total')} {kind}", *samples]
    return "\n".join([*lines, "# EOF", ""])
