"""Results: one table for people, one JSON file for later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.figures import Figure, Measured, Verdict

_COLOURS: dict[Verdict, str] = {"holds": "green", "missed": "bold red", "unclear": "yellow", "reported": "dim"}


@dataclass(frozen=True)
class Result:
    """One benchmark of a run; `measured` is None where it failed, and `error` says how."""

    name: str
    seconds: float
    load_before: float
    load_after: float
    measured: Measured | None
    error: str = ""


def table(results: Sequence[Result]) -> Table:
    """The table of all figures."""
    shown = Table(title="allranks benchmarks", title_justify="left", show_lines=False)
    for name, justify in (("figure", "left"), ("measured", "right"), ("bound", "left"), ("verdict", "left")):
        shown.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for result in results:
        if result.measured is None:
            shown.add_row(result.name, "", result.error, "[bold red]failed[/]")
        else:
            for figure in result.measured.figures:
                colour = _COLOURS[figure.verdict]
                shown.add_row(
                    figure.name, measured_text(figure), bound_text(figure), f"[{colour}]{figure.verdict}[/]"
                )
        shown.add_section()
    return shown


def measured_text(figure: Figure) -> str:
    """A figure's value with its unit, its noise where it is known, and its note."""
    noise = "" if figure.noise is None else f" ± {number(figure.noise)}"
    note = f" ({figure.note})" if figure.note else ""
    return f"{number(figure.value)}{noise} {figure.unit}{note}"


def bound_text(figure: Figure) -> str:
    """A figure's bound, and where it was taken from."""
    bound = figure.bound
    if bound is None:
        return ""
    return f"{bound.sense} {number(bound.limit)} {figure.unit}" + (f": {bound.why}" if bound.why else "")


def number(value: float) -> str:
    """A number with three figures that count; whole from 1,000 on."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(results: Sequence[Result], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run as JSON knows it."""
    return {**facts, "benchmarks": {result.name: _as_json(result) for result in results}}


def joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`before` with what has been measured since in place of its own; each benchmark says when it was measured."""
    benchmarks = {
        name: {"time": document["time"], **measured}
        for document in (before, now)
        for name, measured in document["benchmarks"].items()
    }
    return {**before, **now, "benchmarks": benchmarks}


def write(document: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Writes the same document to each of `paths`."""
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _as_json(result: Result) -> dict[str, Any]:
    about: dict[str, Any] = {
        "seconds": round(result.seconds, 1),
        "load_before": result.load_before,
        "load_after": result.load_after,
    }
    if result.measured is None:
        return {**about, "error": result.error}
    figures = [{**_finite(asdict(figure)), "verdict": figure.verdict} for figure in result.measured.figures]
    return {**about, "figures": figures, "details": _finite(result.measured.details)}


def _finite(value: Any) -> Any:
    """`value` without what JSON cannot say: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
