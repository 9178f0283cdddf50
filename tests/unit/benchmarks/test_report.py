"""The table and the JSON of the results."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from benchmarks import report
from benchmarks.figures import Figure, Measured, at_most
from benchmarks.report import Result
from rich.console import Console

KEPT = Figure("import allranks", 61.23, "ms", at_most(80, "fresh processes"), note="-X importtime 50 ms")
NOISY = Figure("cost to a loop", 0.42, "%", at_most(0.5), noise=0.2)
RESULTS = [
    Result("start_stop", 12.34, 0.5, 0.7, Measured([KEPT, NOISY], {"seconds": [0.1, math.nan]})),
    Result("query", 1.0, 0.7, 0.7, None, "RuntimeError: no answer"),
]


def shown() -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(report.table(RESULTS))
    return capture.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.4567, "0.457"),
        (61.23, "61.2"),
        (999.4, "999"),
        (999.6, "1,000"),
        (287_000.4, "287,000"),
        (-1.25, "-1.25"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert report.number(value) == text


def test_a_row_tells_figure_value_bound_and_verdict() -> None:
    (row,) = [line for line in shown().splitlines() if "import allranks" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [
        "import allranks",
        "61.2 ms (-X importtime 50 ms)",
        "≤ 80 ms: fresh processes",
        "holds",
    ]


def test_noise_stands_beside_the_value() -> None:
    assert report.measured_text(NOISY) == "0.42 ± 0.2 %"


def test_a_benchmark_that_failed_has_a_row() -> None:
    (row,) = [line for line in shown().splitlines() if "query" in line]
    assert "RuntimeError: no answer" in row
    assert "failed" in row


def test_json_holds_figures_verdicts_and_facts() -> None:
    document = report.as_json(RESULTS, {"machine": {"cores": 2}})
    assert document["machine"] == {"cores": 2}
    kept, noisy = document["benchmarks"]["start_stop"]["figures"]
    assert (kept["name"], kept["value"], kept["bound"]["limit"], kept["verdict"]) == (
        "import allranks",
        61.23,
        80,
        "holds",
    )
    assert noisy["verdict"] == "unclear"
    assert document["benchmarks"]["query"]["error"] == "RuntimeError: no answer"


def test_json_is_strict(tmp_path: Path) -> None:
    """A NaN would make a file that other readers refuse."""
    path = tmp_path / "results" / "latest.json"
    report.write(report.as_json(RESULTS, {}), [path])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    document = json.loads(path.read_text(), parse_constant=refuse)
    assert document["benchmarks"]["start_stop"]["details"]["seconds"] == [0.1, None]


def test_all_paths_get_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / "2026-01-02.json", tmp_path / "latest.json"]
    report.write({"a": 1}, paths)
    assert paths[0].read_text() == paths[1].read_text() == '{\n "a": 1\n}\n'


def test_what_is_measured_again_takes_the_place_of_what_was_before() -> None:
    before = {"time": "10:00", "benchmarks": {"query": {"seconds": 1.0}, "console": {"time": "9:00", "seconds": 2.0}}}
    now = {"time": "11:00", "quick": False, "benchmarks": {"query": {"seconds": 3.0}}}
    assert report.joined(before, now) == {
        "time": "11:00",
        "quick": False,
        "benchmarks": {
            "query": {"time": "11:00", "seconds": 3.0},
            "console": {"time": "9:00", "seconds": 2.0},
        },
    }
