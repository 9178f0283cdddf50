"""The dashboard's pages in a real browser, over a collector that says what each test needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.browser.double import file, key, rank, run
from tests.browser.pages import RunPage, RunsPage

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.browser.double import CollectorDouble

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def _training(double: CollectorDouble, ranks: int = 2) -> None:
    double.state.runs = [run("r1", name="first", world_size=ranks, ranks_seen=ranks)]
    double.state.ranks = [rank(number) for number in range(ranks)]
    double.state.keys = [key("train/loss"), key("train/lr"), key("epoch"), key("cpu", kind="system")]


def test_without_runs_the_first_lines_of_python_are_shown(page: Page, double: CollectorDouble) -> None:
    RunsPage(page, double.url).open()
    expect(page.get_by_test_id("empty")).to_contain_text("allranks.init(project=")


def test_a_run_appears_by_itself(page: Page, double: CollectorDouble) -> None:
    runs = RunsPage(page, double.url).open()
    expect(runs.connection).to_have_attribute("data-state", "live")
    double.state.runs = [run("new-one")]
    double.emit("runs", run="new-one")
    expect(runs.row("new-one")).to_be_visible()


def test_a_row_tells_state_project_ranks_and_summary(page: Page, double: CollectorDouble) -> None:
    double.state.runs = [
        run("r1", project="vision", state="failed", ranks_seen=3, world_size=4, summary={"train/loss": 0.25})
    ]
    row = RunsPage(page, double.url).open().row("r1")
    for text in ("failed", "vision", "3/4", "0.2500"):
        expect(row).to_contain_text(text)


def test_the_filter_is_kept_in_the_address(page: Page, double: CollectorDouble) -> None:
    double.state.runs = [run("alpha"), run("beta")]
    runs = RunsPage(page, double.url).open()
    runs.filter("alp")
    expect(runs.rows).to_have_count(1)
    page.reload()
    expect(runs.rows).to_have_count(1)


def test_state_and_project_are_asked_of_the_collector(page: Page, double: CollectorDouble) -> None:
    double.state.runs = [run("r1", project="vision")]
    RunsPage(page, double.url).open()
    page.get_by_test_id("state-choice").select_option("running")
    with page.expect_request(lambda request: "project=vision" in request.url and "state=running" in request.url):
        page.get_by_test_id("project-choice").select_option("vision")


def test_a_row_leads_to_the_runs_page_and_back(page: Page, double: CollectorDouble) -> None:
    _training(double)
    RunsPage(page, double.url).open().enter("r1")
    expect(page).to_have_url(f"{double.url}/runs/r1")
    expect(page.get_by_test_id("run-header")).to_contain_text("first")
    page.go_back()
    expect(page.get_by_test_id("runs-table")).to_be_visible()


def test_the_tabs_title_names_the_run_and_its_state(page: Page, double: CollectorDouble) -> None:
    _training(double)
    RunPage(page, double.url, "r1").open()
    expect(page).to_have_title("running · first · allranks")


def test_an_unknown_run_is_told_in_the_collectors_words(page: Page, double: CollectorDouble) -> None:
    page.goto(f"{double.url}/runs/nope")
    expect(page.get_by_role("alert")).to_contain_text("no run nope")
    expect(page.get_by_test_id("connection")).to_have_count(0)  # nothing here is waited for


@pytest.mark.parametrize("path", ["/", "/runs/r1"])
def test_a_lost_collector_is_told_and_found_again(page: Page, double: CollectorDouble, path: str) -> None:
    _training(double)
    page.goto(double.url + path)
    connection = page.get_by_test_id("connection")
    expect(connection).to_have_attribute("data-state", "live")
    double.stop()
    expect(connection).to_have_text("reconnecting…")
    double.state.runs[0]["name"] = "renamed meanwhile"
    double.start()
    expect(connection).to_have_attribute("data-state", "live")
    expect(page.get_by_text("renamed meanwhile").first).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/runs/r1"])
def test_a_request_that_failed_is_made_again(page: Page, double: CollectorDouble, path: str) -> None:
    _training(double)
    double.state.trouble = True
    page.goto(double.url + path)
    expect(page.get_by_role("alert")).to_contain_text("failed on this request")
    double.state.trouble = False
    expect(page.get_by_text("first").first).to_be_visible()


def test_a_chart_whose_request_failed_asks_again(page: Page, double: CollectorDouble) -> None:
    _training(double)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.chart("train/loss").expect_drawn()
    double.state.trouble = True
    run_page.mode("lines")
    expect(run_page.chart("train/loss").card).to_contain_text("failed on this request")
    double.state.trouble = False
    run_page.chart("train/loss").expect_drawn()


def test_what_ranks_say_is_text_and_never_markup(page: Page, double: CollectorDouble) -> None:
    double.state.runs = [
        run("r1", name=HOSTILE, project=HOSTILE, group=HOSTILE, notes=HOSTILE, tags=[HOSTILE],
            config={HOSTILE: HOSTILE}, summary={HOSTILE: HOSTILE})
    ]  # fmt: skip
    exception = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE}
    double.state.ranks = [rank(0, "failed", host=HOSTILE, reason=HOSTILE, signal=HOSTILE, exception=exception)]
    double.state.keys = [key(HOSTILE), key(f"{HOSTILE} text", kind="object")]
    double.state.objects = [
        {"key": "t", "rank": 0, "attempt": 1, "step": 1, "time": 1.0, "value": HOSTILE},
    ]
    double.state.files = [file(HOSTILE, host=HOSTILE), file(f"{HOSTILE} folder/a")]
    double.state.arriving = [{"name": HOSTILE, "host": HOSTILE, "size": 10, "offset": 5}]
    double.state.events = [
        {"event": 1, "time": 1.0, "kind": HOSTILE, "rank": 0, "attempt": 1, "host": HOSTILE, "pid": 1,
         "body": {HOSTILE: HOSTILE}}
    ]  # fmt: skip
    RunsPage(page, double.url).open()
    expect(page.get_by_test_id("run-row")).to_contain_text(HOSTILE)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.cell(0).hover()
    tabs = (
        ("charts", "chart"), ("files", "files"), ("config", "config"), ("events", "events"), ("objects", "objects"),
    )  # fmt: skip
    for tab, shown in tabs:
        run_page.tab(tab)
        expect(page.get_by_test_id(shown).first).to_be_visible()
        assert page.locator("img[src=x], #app script").count() == 0
    assert "owned" not in page.title().replace(HOSTILE, "")


def test_a_run_that_is_removed_says_so(page: Page, double: CollectorDouble) -> None:
    _training(double)
    RunPage(page, double.url, "r1").open()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    double.state.runs = []
    double.emit("runs", run="r1", removed=True)
    expect(page.get_by_text("This run has been removed.")).to_be_visible()
    expect(page.get_by_test_id("connection")).to_have_count(0)


def test_an_address_with_an_attempt_that_never_was_shows_the_newest(page: Page, double: CollectorDouble) -> None:
    _training(double)
    RunPage(page, double.url, "r1").open("?attempt=9").expect_rank(1, "running")
    assert {"attempt" in asked.params for asked in double.asked_for("/ranks")} == {False}


def test_a_thousand_ranks_have_a_cell_each_within_the_window(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=1024)
    double.state.ranks[700] = rank(700, "dead", signal="SIGKILL")
    run_page = RunPage(page, double.url, "r1").open()
    expect(run_page.cells).to_have_count(1024)
    run_page.expect_rank(700, "dead")
    box = page.get_by_test_id("rank-grid").bounding_box()
    assert box is not None
    assert box["width"] <= 1400
    assert box["height"] <= 600


def test_a_cell_tells_all_about_its_rank(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.ranks[1] = rank(1, "dead", signal="SIGKILL", reason="out of memory", last_step=41)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.cell(1).hover()
    hint = page.get_by_role("tooltip")
    for text in ("rank 1", "dead", "node-0", "1001", "41", "SIGKILL · out of memory"):
        expect(hint).to_contain_text(text)


def test_an_exception_is_told_in_a_line_and_its_traceback_on_demand(page: Page, double: CollectorDouble) -> None:
    _training(double)
    exception = {"type": "ValueError", "message": "no such key", "traceback": "Traceback\n  File x.py"}
    double.state.events = [
        {"event": 1, "time": 1.0, "kind": "closed", "rank": 0, "attempt": 1, "host": "h", "pid": 1}
        | {"body": {"exit_code": 1, "exception": exception}}
    ]
    page.goto(f"{double.url}/runs/r1?tab=events")
    row = page.get_by_test_id("events").locator("tr[data-kind=closed]").first
    expect(row).to_contain_text("ValueError: no such key")
    expect(row.locator("pre")).to_be_hidden()
    row.locator("summary").click()
    expect(row.locator("pre")).to_contain_text("File x.py")


def test_an_event_says_in_words_what_the_collector_keeps_by_numbers(page: Page, double: CollectorDouble) -> None:
    _training(double)
    body = {
        "rank": 0,
        "text": "rank 0 is claimed by 2 processes at once",
        "claims": [{"writer": 471}],
        "rivals": [471],
        "targets": {},
    }
    double.state.events = [
        {"event": 1, "time": 1.0, "kind": "rank-claimed-twice", "rank": 0, "host": "h", "pid": 1, "body": body}
    ]
    page.goto(f"{double.url}/runs/r1?tab=events")
    row = page.get_by_test_id("events").locator("tr[data-kind=rank-claimed-twice]").first
    expect(row).to_contain_text("rank 0 is claimed by 2 processes at once")
    expect(row).not_to_contain_text("471")
    expect(row).not_to_contain_text("targets")


def test_the_first_rank_to_fail_stands_before_its_victims(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=4)
    double.state.ranks[3] = rank(3, "failed", ended_at=10.0, exit_code=1, reason="out of memory")
    for number in range(3):
        double.state.ranks[number] = rank(number, "dead", ended_at=12.0 + number, signal="SIGTERM")
    problems = RunPage(page, double.url, "r1").open().problems
    expect(problems).to_have_count(2)
    expect(problems.nth(0)).to_have_attribute("data-ranks", "3")
    expect(problems.nth(0)).to_contain_text("first")
    expect(problems.nth(1)).to_have_attribute("data-ranks", "0-2")


def test_the_verdict_stands_on_top_and_its_rank_before_those_that_told_sooner(
    page: Page, double: CollectorDouble
) -> None:
    _training(double, ranks=3)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.expect_rank(2, "running")
    expect(page.get_by_test_id("verdict")).to_have_count(0)
    double.state.ranks = [
        rank(0, "failed", ended_at=9.0, reason="Connection closed by peer"),
        rank(1, "failed", ended_at=9.1, reason="Connection closed by peer"),
        rank(2, "dead", ended_at=9.2, signal="SIGKILL"),
    ]
    double.state.why = {
        "outcome": "failed",
        "first": {"rank": 2},
        "stalled": [],
        "roll_call": {"missing": []},
        "lines": [f"rank 2 {HOSTILE} failed first: killed by SIGKILL", "last words: none are kept"],
    }
    double.emit("ranks", run="r1")
    expect(page.get_by_test_id("verdict")).to_contain_text(f"rank 2 {HOSTILE} failed first: killed by SIGKILL")
    expect(page.get_by_test_id("verdict")).to_contain_text("last words: none are kept")
    expect(run_page.problems.nth(0)).to_have_attribute("data-ranks", "2")
    expect(run_page.problems.nth(0)).to_contain_text("first")


def test_who_is_missing_is_told_on_top_until_it_comes(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=3)
    found = {"outcome": "running", "first": None, "stalled": [], "lines": ["not complete", "3 of 4 present"]}
    double.state.why = {**found, "roll_call": {"missing": [{"rank": 3, "host": "node-1"}]}}
    RunPage(page, double.url, "r1").open()
    expect(page.get_by_test_id("verdict")).to_contain_text("3 of 4 present")
    double.state.why = {**found, "roll_call": {"missing": []}}
    double.emit("ranks", run="r1")
    expect(page.get_by_test_id("verdict")).to_have_count(0)


def test_a_cell_follows_its_rank(page: Page, double: CollectorDouble) -> None:
    _training(double)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.expect_rank(1, "running")
    double.state.ranks[1] = rank(1, "stalled")
    double.emit("ranks", run="r1")
    run_page.expect_rank(1, "stalled")


def test_ranks_are_chosen_by_keyboard_too(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=16)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.cell(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(run_page.cell(1)).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile("ranks=1$"))


def test_charts_ask_only_for_the_ranks_chosen(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=16)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.chart("train/loss").points()
    with page.expect_request(lambda request: "/metrics?" in request.url and "ranks=3" in request.url):
        run_page.cell(3).click()


def test_keys_are_grouped_and_charts_are_drawn(page: Page, double: CollectorDouble) -> None:
    _training(double)
    run_page = RunPage(page, double.url, "r1").open()
    sections = page.get_by_test_id("chart-section")
    expect(sections).to_have_count(2)
    expect(sections.nth(0)).to_have_attribute("data-name", "train")
    expect(sections.nth(1)).to_have_attribute("data-name", "General")
    run_page.chart("train/loss").expect_drawn()
    run_page.chart("epoch").expect_drawn()


def test_charts_grow_in_place_while_the_run_goes_on(page: Page, double: CollectorDouble) -> None:
    _training(double)
    chart = RunPage(page, double.url, "r1").open().chart("train/loss")
    assert chart.points() == 100
    canvas = chart.card.locator("canvas").element_handle()
    double.state.steps = 150
    double.emit("metrics", run="r1", last_step=149, keys=["train/loss"])
    expect(chart.card).to_have_attribute("data-points", "150")
    assert canvas is not None
    assert canvas.evaluate("canvas => document.contains(canvas)")


def test_the_tooltip_names_the_highest_and_the_lowest_rank(page: Page, double: CollectorDouble) -> None:
    _training(double)
    chart = RunPage(page, double.url, "r1").open().chart("train/loss")
    chart.expect_drawn()
    chart.expect_tooltip("mean", "max · rank 0", "min · rank 1")


def test_values_that_are_not_finite_are_counted_and_leave_a_gap(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.nonfinite_at = 50
    chart = RunPage(page, double.url, "r1").open().chart("train/loss")
    chart.expect_drawn()
    expect(chart.card).to_contain_text("1 non-finite")


def test_lines_show_one_per_rank_and_the_nearest_by_name(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=4)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.mode("lines")
    chart = run_page.chart("train/loss")
    expect(chart.card).to_have_attribute("data-points", "400")
    chart.expect_tooltip(*(f"rank {number}" for number in range(4)))


def test_too_many_lines_are_a_sample_and_the_page_says_so(page: Page, double: CollectorDouble) -> None:
    _training(double, ranks=512)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.mode("lines")
    expect(page.get_by_text("64 lines: a sample of 512 ranks")).to_be_visible()


def test_a_drag_zooms_every_chart_at_a_finer_resolution(page: Page, double: CollectorDouble) -> None:
    _training(double)
    run_page = RunPage(page, double.url, "r1").open()
    chart = run_page.chart("train/loss")
    chart.expect_drawn()
    with page.expect_request(lambda request: "step_min=" in request.url and "step_max=" in request.url):
        chart.drag(0.25, 0.35, 0.5)
    expect(run_page.chart("train/lr").card).to_have_attribute("data-zoomed", "")
    # What was asked for without the zoom stands until the answer comes.
    expect(chart.card).to_have_attribute("data-points", re.compile(r"^[1-3]\d$"))
    page.get_by_test_id("zoom-reset").click()
    expect(chart.card).to_have_attribute("data-points", "100")


def test_charts_out_of_sight_are_not_asked_for(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.keys = [key(f"layer/{number:03d}") for number in range(200)]
    run_page = RunPage(page, double.url, "r1").open()
    run_page.chart("layer/000").points()
    asked = {name for request in double.asked_for("/metrics") for name in request.params["key"]}
    assert "layer/199" not in asked
    run_page.chart("layer/199").card.scroll_into_view_if_needed()
    run_page.chart("layer/199").expect_drawn()


def test_system_figures_have_a_tab_of_their_own(page: Page, double: CollectorDouble) -> None:
    _training(double)
    run_page = RunPage(page, double.url, "r1").open()
    run_page.tab("system")
    run_page.chart("cpu").expect_drawn()
    assert double.asked_for("/system")[0].params["x"] == ["time"]


def test_nested_config_can_be_searched(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.runs[0]["config"] = {"model": {"depth": 50}, "lr": 0.0003}
    RunPage(page, double.url, "r1").open("?tab=config")
    table = page.get_by_test_id("config")
    expect(table).to_contain_text("0.0003")
    page.get_by_test_id("config-filter").fill("depth")
    expect(table.get_by_role("row")).to_have_count(1)
    expect(table).to_contain_text("model.depth")


def test_the_theme_is_the_systems_until_one_is_chosen(page: Page, double: CollectorDouble) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    RunsPage(page, double.url).open()
    light = page.evaluate(background)
    page.get_by_test_id("theme-toggle").click()
    dark = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == dark


# -- files ------------------------------------------------------------------------------------------------


def test_files_stand_in_their_folders_for_download(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.files = [
        file("checkpoints/last.ckpt", 3 << 20, host="node-1", rank=8, versions=4),
        file("checkpoints/best.ckpt", 1 << 20),
        file("notes.txt", 12),
    ]
    RunPage(page, double.url, "r1").open("?tab=files")
    files = page.get_by_test_id("file-row")
    expect(files).to_have_count(3)
    expect(page.get_by_test_id("folder-row")).to_contain_text("checkpoints/")
    expect(page.get_by_test_id("folder-row")).to_contain_text("4.0 MiB")
    last = page.locator('[data-name="checkpoints/last.ckpt"]')
    for text in ("last.ckpt", "3.0 MiB", "node-1", "8", "abababababab", "4 versions"):
        expect(last).to_contain_text(text)
    href = "/api/runs/r1/files/checkpoints/last.ckpt?host=node-1"
    expect(last.get_by_role("link")).to_have_attribute("href", href)
    expect(last.get_by_role("link")).to_have_attribute("download", "last.ckpt")
    expect(page.get_by_test_id("tab-files")).to_contain_text("3")
    page.get_by_test_id("folder-row").get_by_role("button").click()
    expect(files).to_have_count(1)
    page.get_by_test_id("files-filter").fill("best")
    page.get_by_test_id("folder-row").get_by_role("button").click()
    expect(files).to_have_count(1)
    expect(files).to_have_attribute("data-name", "checkpoints/best.ckpt")


def test_what_arrives_is_a_bar_that_fills_and_then_a_row(page: Page, double: CollectorDouble) -> None:
    _training(double)
    double.state.arriving = [{"name": "big.ckpt", "host": "node-0", "size": 4 << 20, "offset": 1 << 20}]
    RunPage(page, double.url, "r1").open("?tab=files")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    bar = page.get_by_test_id("arrival")
    expect(bar).to_contain_text("1.0 MiB of 4.0 MiB")
    expect(bar.get_by_role("progressbar")).to_have_attribute("value", "0.25")
    double.state.arriving[0]["offset"] = 3 << 20
    double.emit("files", run="r1")
    expect(bar.get_by_role("progressbar")).to_have_attribute("value", "0.75")
    double.state.arriving, double.state.files = [], [file("big.ckpt", 4 << 20)]
    double.emit("files", run="r1")
    expect(bar).to_have_count(0)
    expect(page.get_by_test_id("file-row")).to_have_attribute("data-name", "big.ckpt")


def test_without_files_the_page_says_what_would_come(page: Page, double: CollectorDouble) -> None:
    _training(double)
    RunPage(page, double.url, "r1").open("?tab=files")
    expect(page.get_by_text("No files yet.")).to_be_visible()
