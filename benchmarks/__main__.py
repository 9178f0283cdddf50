"""`python -m benchmarks [NAME…]`: measures, shows one table, and keeps the results as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import machine, report
from benchmarks.figures import Measured, Options
from benchmarks.processes import ROOT
from benchmarks.report import Result

# Each is a module with a `measure(Options) -> Measured`; in the order of the table.
BENCHMARKS = (
    "log_call",
    "steady_log",
    "throughput",
    "many_writers",
    "query",
    "start_stop",
    "exit_delay",
    "file_transfer",
    "console",
    "console_lines",
    "training_cost",
    "deaths",
    "lost_nodes",
    "stalls",
    "first_cause",
    "health_scale",
    "false_accusations",
)
# For logs, where rich finds no terminal to ask.
_FILE_WIDTH = 160
RESULTS = ROOT / "benchmarks" / "results"
LATEST = RESULTS / "latest.json"
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks; the exit code is 1 where one failed or a bound was missed."""
    told = _parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    if told.peers and not PEER_PYTHON.exists():
        console.print(
            f"--peers needs {PEER_PYTHON.relative_to(ROOT)}: "
            "python3 -m venv .venv-bench && .venv-bench/bin/pip install -e '.\\[bench]'"
        )
        return 2
    if told.keep and told.quick:
        console.print("--keep is for figures that are measured in full: leave --quick out")
        return 2
    options = Options(quick=told.quick, peer_python=str(PEER_PYTHON) if told.peers else None)
    names = [name for name in BENCHMARKS if not told.names or name in told.names]
    results: list[Result] = []
    for name in names:
        with console.status(f"{name} …"):
            results.append(run_one(name, options))
        console.print(
            f"{name}: {results[-1].seconds:.0f} s, load {results[-1].load_before} → {results[-1].load_after}"
        )
    console.print(report.table(results))
    document = report.as_json(results, _facts(options))
    is_whole = len(names) == len(BENCHMARKS) and not options.quick
    paths = result_paths(is_whole=is_whole)
    report.write(document, paths)
    if told.keep:
        paths.append(LATEST)
        report.write(report.joined(json.loads(LATEST.read_text()), document), [LATEST])
    console.print(f"kept in {', '.join(str(path.relative_to(ROOT)) for path in paths)}")
    return exit_code(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it work at all?")
    parser.add_argument("--keep", action="store_true", help="into latest.json, in place of what was measured before")
    parser.add_argument("--peers", action="store_true", help="other trackers too, from .venv-bench")
    return parser


def run_one(name: str, options: Options) -> Result:
    """Runs one benchmark; a failure becomes a result too."""
    before, begun = machine.load(), time.monotonic()
    measured: Measured | None = None
    error = ""
    try:
        measured = importlib.import_module(f"benchmarks.{name}").measure(options)
    except Exception as failure:  # the others are worth measuring all the same
        error = f"{type(failure).__name__}: {failure}"
    return Result(name, time.monotonic() - begun, before, machine.load(), measured, error)


def exit_code(results: Sequence[Result]) -> int:
    """1 where a benchmark failed, or a bound was missed."""
    return int(any(result.measured is None or _has_missed(result.measured) for result in results))


def _has_missed(measured: Measured) -> bool:
    return any(figure.verdict == "missed" for figure in measured.figures)


def _facts(options: Options) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts: dict[str, Any] = {"time": now, "quick": options.quick, "machine": machine.facts()}
    if options.peer_python is not None:
        facts["peers"] = machine.peer_versions(options.peer_python)
    return facts


def result_paths(*, is_whole: bool) -> list[Path]:
    """Where the results are kept: those of a choice, or of a quick run, are not for comparing."""
    now = datetime.now(timezone.utc)
    if is_whole:
        return [RESULTS / f"{now:%Y-%m-%d}.json", LATEST]
    return [RESULTS / "scratch" / f"{now:%Y-%m-%dT%H%M%S}.json"]


if __name__ == "__main__":
    raise SystemExit(main())
