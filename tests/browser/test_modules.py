"""The page's pure functions, called where they run: in the browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.browser.double import CollectorDouble


def call(page: Page, double: CollectorDouble, module: str, function: str, *arguments: Any) -> Any:
    """What the function of /static/<module>.js gives for these arguments."""
    if not page.url.startswith(double.url):
        page.goto(f"{double.url}/static/icon.svg")
    text = ", ".join(json.dumps(argument) for argument in arguments)
    return page.evaluate(f"import('/static/{module}.js').then(module => module.{function}({text}))")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (12345, "12,345"), (0.25, "0.2500"), (1234.5678, "1,234.57"), (3e-7, "3e-7"),
        (1.5e9, "1.500e9"), (-0.5, "-0.5000"), ("text", "text"),
    ],
)  # fmt: skip
def test_numbers_are_short(page: Page, double: CollectorDouble, value: Any, text: str) -> None:
    assert call(page, double, "format", "number", value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0s"), (0.25, "0.25s"), (12, "12s"), (200, "3m 20s"), (7500, "2h 5m"), (360000, "4d 4h"),
        (60, "1m"),
    ],
)  # fmt: skip
def test_durations_have_two_units(page: Page, double: CollectorDouble, seconds: Any, text: str) -> None:
    assert call(page, double, "format", "duration", seconds) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.25, 0.5], ["0", "0.25", "0.50"]),
        ([0, 5000, 10000], ["0", "5k", "10k"]),
        ([41000, 41250], ["41.00k", "41.25k"]),
        ([1000, 2000], ["1000", "2000"]),
    ],
)
def test_an_axis_has_one_scale(page: Page, double: CollectorDouble, values: list[float], texts: list[str]) -> None:
    assert call(page, double, "format", "axisNumbers", values) == texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([10.0, 10.05, 10.1], ["10.00s", "10.05s", "10.10s"]),
        ([0.0, 0.5], ["0.0s", "0.5s"]),
        ([0, 60, 120], ["0s", "1m", "2m"]),
    ],
)
def test_moments_close_together_are_told_apart(
    page: Page, double: CollectorDouble, values: list[float], texts: list[str]
) -> None:
    assert call(page, double, "format", "axisDurations", values) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0 B"), (1023, "1023 B"), (4096, "4.0 KiB"), (12 << 20, "12 MiB"), (3 << 29, "1.5 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)  # fmt: skip
def test_bytes_have_a_unit(page: Page, double: CollectorDouble, value: Any, text: str) -> None:
    assert call(page, double, "format", "bytes", value) == text


def test_files_are_rows_in_their_folders(page: Page, double: CollectorDouble) -> None:
    names = ["b.txt", "runs/10.ckpt", "runs/9.ckpt", "a.txt", "runs/old/1.ckpt", "__proto__/x"]
    files = [{"name": name, "host": "h", "size": 10} for name in names]
    rows = call(page, double, "files", "fileRows", files)
    assert [(row["label"], row["depth"]) for row in rows] == [
        ("__proto__", 0), ("x", 1), ("runs", 0), ("old", 1), ("1.ckpt", 2), ("9.ckpt", 1), ("10.ckpt", 1),
        ("a.txt", 0), ("b.txt", 0),
    ]  # fmt: skip
    assert rows[2]["folder"] == {"count": 3, "bytes": 30, "open": True}


def test_a_file_of_several_hosts_has_a_row_each(page: Page, double: CollectorDouble) -> None:
    files = [{"name": "a/log", "host": host, "size": 1} for host in ("h2", "h1")]
    rows = call(page, double, "files", "fileRows", files)
    assert [row["file"]["host"] for row in rows[1:]] == ["h1", "h2"]
    assert len({row["path"] for row in rows}) == 3


@pytest.mark.parametrize(("offset", "size", "share"), [(0, 10, 0), (5, 10, 0.5), (10, 10, 1), (0, 0, 1)])
def test_the_share_that_is_here(page: Page, double: CollectorDouble, offset: int, size: int, share: float) -> None:
    assert call(page, double, "files", "share", {"offset": offset, "size": size}) == share


def test_a_files_address_names_it_whatever_it_is_called(page: Page, double: CollectorDouble) -> None:
    file = {"name": "a b/..#?.txt", "host": "h&x=1"}
    url = call(page, double, "api", "fileUrl", "run/1", file)
    assert url == "/api/runs/run%2F1/files/a%20b/..%23%3F.txt?host=h%26x%3D1"


def test_nested_maps_become_sorted_paths(page: Page, double: CollectorDouble) -> None:
    rows = call(page, double, "format", "flatten", {"b": {"d": 1, "c": [2]}, "a": None, "e": {}})
    assert rows == [["a", None], ["b.c", [2]], ["b.d", 1], ["e", {}]]


def test_smoothing_starts_at_the_first_value_and_passes_over_gaps(page: Page, double: CollectorDouble) -> None:
    assert call(page, double, "series", "smooth", [10, None, 10, 10], 0.9) == pytest.approx([10, None, 10, 10])
    rising = call(page, double, "series", "smooth", [0, 1], 0.5)
    assert rising == pytest.approx([0, 2 / 3])


def test_no_smoothing_changes_nothing(page: Page, double: CollectorDouble) -> None:
    assert call(page, double, "series", "smooth", [1, None, 3], 0) == [1, None, 3]


def test_a_logarithmic_axis_has_gaps_for_zero_and_below(page: Page, double: CollectorDouble) -> None:
    assert call(page, double, "series", "positive", [1, 0, -1, None]) == [1, None, None, None]


def test_lines_of_different_x_share_one_axis(page: Page, double: CollectorDouble) -> None:
    lines = [{"x": [0, 2], "value": [1, 3]}, {"x": [0, 1, 2], "value": [4, None, 6]}]
    columns = call(page, double, "series", "lineColumns", lines)
    assert columns == [[0, 1, 2], [1, None, 3], [4, None, 6]]


def test_a_range_of_x_is_a_range_of_steps(page: Page, double: CollectorDouble) -> None:
    series = {"x": [0.0, 1.0, 2.0, 3.0, 4.0], "step": [0, 10, 20, 30, 40]}
    assert call(page, double, "series", "stepsBetween", series, 1.5, 2.5) == [10, 30]
    assert call(page, double, "series", "stepsBetween", series, 9, 10) is None


def test_sections_begin_with_training(page: Page, double: CollectorDouble) -> None:
    keys = [{"key": name} for name in ("zeta/a", "epoch", "val/x", "train/b10", "train/b2")]
    found = call(page, double, "series", "sections", keys)
    assert [section["name"] for section in found] == ["train", "val", "", "zeta"]
    assert [key["key"] for key in found[0]["keys"]] == ["train/b2", "train/b10"]


def test_sets_of_ranks_are_read_and_written(page: Page, double: CollectorDouble) -> None:
    assert call(page, double, "ranks", "parseRanks", "0-3,7, 9 ,x,-") == [0, 1, 2, 3, 7, 9]
    assert call(page, double, "ranks", "formatRanks", [7, 3, 1, 0, 2]) == "0-3,7"


def test_a_sample_keeps_both_ends(page: Page, double: CollectorDouble) -> None:
    sampled = call(page, double, "ranks", "sample", list(range(1000)), 10)
    assert (len(sampled), sampled[0], sampled[-1]) == (10, 0, 999)


def test_columns_of_the_list_begin_with_figures_of_merit(page: Page, double: CollectorDouble) -> None:
    runs = [{"summary": {"epoch": 3, "val/accuracy": 0.5, "train/loss": 0.1, "note": "x"}}]
    assert call(page, double, "columns", "summaryKeys", runs) == ["train/loss", "val/accuracy", "epoch"]


def test_runs_without_a_value_come_last_in_both_orders(page: Page, double: CollectorDouble) -> None:
    page.goto(f"{double.url}/static/icon.svg")
    order = """descending => import('/static/columns.js').then(m =>
        m.sortRuns([{v: 1}, {v: null}, {v: 2}], run => run.v, descending).map(run => run.v))"""
    assert page.evaluate(order, False) == [1, 2, None]
    assert page.evaluate(order, True) == [2, 1, None]


@pytest.mark.parametrize(("width", "columns"), [(250, 8), (400, 16), (450, 24), (700, 32), (1300, 64)])
def test_rows_of_the_rank_grid_end_at_round_ranks(
    page: Page, double: CollectorDouble, width: int, columns: int
) -> None:
    page.goto(f"{double.url}/static/icon.svg")
    expression = f"import('/static/components/rank_grid.js').then(m => m.columnsFor({width}, 1024, 13))"
    assert page.evaluate(expression) == columns


@pytest.mark.parametrize(
    ("width", "ranks", "size"), [(1300, 16, 34), (1300, 1024, 13), (340, 1024, 8), (340, 64, 26)]
)
def test_many_ranks_in_a_narrow_window_have_small_cells(
    page: Page, double: CollectorDouble, width: int, ranks: int, size: int
) -> None:
    page.goto(f"{double.url}/static/icon.svg")
    expression = f"import('/static/components/rank_grid.js').then(m => m.sizeFor({width}, {ranks}).size)"
    assert page.evaluate(expression) == size
