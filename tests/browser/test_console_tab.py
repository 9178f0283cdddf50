"""The console tab in a real browser: what ranks printed is found, followed, told apart, and never markup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import duckdb
import pytest
from playwright.sync_api import expect
from tests.browser.console_page import ConsolePage
from tests.browser.double import rank, run
from tests.browser.log_double import line, open_line
from tests.browser.pages import RunPage
from tests.browser.test_modules import call
from tests.support.collector import CollectorProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from playwright.sync_api import Page, Route
    from tests.browser.double import CollectorDouble
    from tests.browser.log_double import Line

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\x1b]8;;javascript:document.title='owned'\x07link\x1b]8;;\x07\x1b]0;owned\x07\u202edenwo\u202c<a href=//x>"
)
MANY = 1_000_000


def _run(double: CollectorDouble, ranks: int = 2) -> None:
    double.state.runs = [run("r1", world_size=ranks, ranks_seen=ranks)]
    double.state.ranks = [rank(number) for number in range(ranks)]


def _console(page: Page, double: CollectorDouble, lines: list[Line], query: str = "") -> ConsolePage:
    _run(double)
    double.state.logs.lines = lines
    return ConsolePage(page, double.url, "r1").open(query)


def _lines(count: int, **fields: Any) -> list[Line]:
    return [line(number, **fields) for number in range(1, count + 1)]


# -- colours ---------------------------------------------------------------------------------------------------------


LOOKS: dict[str, list[tuple[str, str, str | None, str | None]]] = {
    "a\x1b[31mb\x1b[0mc": [("a", "", None, None), ("b", "fg-1", None, None), ("c", "", None, None)],
    "\x1b[1;3;4;92mx": [("x", "bold italic underline fg-10", None, None)],
    "\x1b[2mx\x1b[22my": [("x", "dim", None, None), ("y", "", None, None)],
    "\x1b[7mx": [("x", "inverse", None, None)],
    "\x1b[38;5;208mx": [("x", "fg-own", "rgb(255 135 0)", None)],
    "\x1b[38;5;9mx": [("x", "fg-9", None, None)],
    "\x1b[38;2;1;2;3;4mx": [("x", "underline fg-own", "rgb(1 2 3)", None)],
    "\x1b[38:2::1:2:3mx": [("x", "fg-own", "rgb(1 2 3)", None)],
    "\x1b[48;2;250;250;0mx": [("x", "", "rgb(17 17 17)", "rgb(250 250 0)")],
    "\x1b[7;48;5;244mx": [("x", "fg-own", "rgb(128 128 128)", None)],
    "\x1b[38;5;999mx\x1b[38;2;1mx\x1b[999;;mx": [("x", "", None, None)] * 3,
    "\x1b[mx": [("x", "", None, None)],
}


def test_colours_are_looks_of_text(page: Page, double: CollectorDouble) -> None:
    for text, looks in LOOKS.items():
        found = call(page, double, "ansi", "runs", text)
        assert [(run["text"], run["classes"], run["color"], run["background"]) for run in found] == looks, text


def test_what_shows_nothing_is_written_out(page: Page, double: CollectorDouble) -> None:
    assert call(page, double, "ansi", "visible", "a\x1b]0;b\x07\tc\u202ed\x85") == "a^[]0;b^G\tc‹U+202E›d‹U+0085›"


def test_a_match_is_marked_across_colours(page: Page, double: CollectorDouble) -> None:
    runs = call(page, double, "ansi", "runs", "ab\x1b[1mcd")
    marked = call(page, double, "ansi", "withMarks", runs, [[1, 3]])
    assert [(run["text"], run["classes"], run["marked"]) for run in marked] == [
        ("a", "", False), ("b", "", True), ("c", "bold", True), ("d", "bold", False),
    ]  # fmt: skip


def test_an_expression_that_may_take_for_ever_is_not_tried_in_the_browser(
    page: Page, double: CollectorDouble
) -> None:
    tried = {"a+b": True, "(?i)A": True, "(a+)+$": False, "a*b*c*d": False, "(": False, r"\(x\)+[*+{]*": True}
    for search, is_tried in tried.items():
        assert (call(page, double, "ansi", "marker", search) is not None) == is_tried, search


# -- places ----------------------------------------------------------------------------------------------------------


def test_the_last_page_is_a_whole_one(page: Page, double: CollectorDouble) -> None:
    pages = call(page, double, "log_pages", "pagesOf", 1_200, 500)
    assert [(entry["start"], entry["end"]) for entry in pages] == [(0, 200), (200, 700), (700, 1_200)]


ADD = """([pages, row, fold]) => import('/static/log_pages.js').then(m => {
    m.addRow(pages, row, fold); return pages; })"""


def _page(start: int, end: int, rows: list[Line] | None) -> dict[str, Any]:
    return {"start": start, "end": end, "rows": rows, "height": None}


def _added(page: Page, double: CollectorDouble, pages: list[Any], row: Line, *, fold: bool = False) -> list[Any]:
    page.goto(f"{double.url}/static/icon.svg")
    found = page.evaluate(ADD, [pages, row, fold])
    return [(p["start"], p["end"], p["rows"] and [r["number"] for r in p["rows"]]) for p in found]


def test_a_line_that_comes_late_stands_in_its_place(page: Page, double: CollectorDouble) -> None:
    pages = [_page(0, 2, [line(1), line(2)]), _page(2, 4, [line(3), line(5)]), _page(4, 4, [])]
    late = line(9, time=line(4)["time"])
    assert _added(page, double, pages, late) == [(0, 2, [1, 2]), (2, 5, [3, 9, 5]), (5, 5, [])]


def test_a_line_at_the_end_opens_the_new_page(page: Page, double: CollectorDouble) -> None:
    pages = [_page(0, 2, [line(1), line(2)]), _page(2, 2, [])]
    assert _added(page, double, pages, line(3)) == [(0, 2, [1, 2]), (2, 3, [3])]


def test_a_late_line_between_pages_that_are_not_here_is_counted_there(page: Page, double: CollectorDouble) -> None:
    pages = [_page(0, 2, [line(1), line(2)]), _page(2, 10, None), _page(10, 12, [line(20), line(21)])]
    late = line(99, time=line(8)["time"])
    assert _added(page, double, pages, late) == [(0, 2, [1, 2]), (2, 11, None), (11, 13, [20, 21])]


def test_a_line_of_another_rank_joins_the_one_like_it(page: Page, double: CollectorDouble) -> None:
    rows = [line(1, "same"), line(2, "same")]
    assert _added(page, double, [_page(0, 2, rows)], line(3, "same", rank=1), fold=True) == [(0, 3, [1, 2])]
    assert _added(page, double, [_page(0, 2, rows)], line(3, "same", rank=0), fold=True) == [(0, 3, [1, 2, 3])]


def test_the_bar_goes_pixel_by_pixel_and_over_all(page: Page, double: CollectorDouble) -> None:
    size = call(page, double, "log_pages", "extent", 1_000_000, 18, 500)
    assert size == {"all": 18_000_000, "element": 8_000_000, "seen": 500}
    assert call(page, double, "log_pages", "topAfter", 1_000, 400, 430, size) == 1_030
    assert call(page, double, "log_pages", "topAfter", 1_000, 400, 1_400, size, True) == 2_000
    assert call(page, double, "log_pages", "topAfter", 0, 0, 7_999_500, size) == 17_999_500
    assert call(page, double, "log_pages", "barAt", 17_999_500, size) == 7_999_500
    small = call(page, double, "log_pages", "extent", 1_000, 18, 500)
    assert call(page, double, "log_pages", "topAfter", 0, 0, 5_000, small) == 5_000


# -- what is seen ----------------------------------------------------------------------------------------------------


def test_without_lines_the_page_says_what_would_come(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, [])
    expect(console.page.get_by_text("Nothing printed yet.")).to_be_visible()
    double.state.logs.lines = [line(1, "hello")]
    double.emit("logs", run="r1")
    expect(console.with_text("hello")).to_be_visible()


def test_the_newest_lines_are_in_sight_and_few_are_in_the_document(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(5_000))
    console.expect_in_sight(console.row(5_000))
    expect(console.part("total")).to_have_text("5,000 lines")
    assert console.rows.count() < 150
    console.scroll_to(0)
    console.expect_in_sight(console.row(1))
    assert console.rows.count() < 150
    console.scroll_to(0.5)
    console.expect_in_sight(console.row(2_500))


def test_a_line_has_its_rank_its_time_and_its_colours(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, [line(1, "a \x1b[31mred\x1b[0m b", rank=9, host="node-1", stream="stderr")])
    row = console.row(1)
    expect(row).to_contain_text("node-1:9")
    expect(row).to_have_attribute("data-stream", "stderr")
    expect(row.locator(".fg-1")).to_have_text("red")
    expect(row.locator("time")).to_have_count(0)
    console.part("times").click()
    expect(row.locator("time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3}"))
    console.part("hosts").click()
    expect(row).not_to_contain_text("node-1")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_read_in_both_themes(page: Page, double: CollectorDouble, theme: str) -> None:
    codes = [*(f"{code}" for code in (*range(30, 38), *range(90, 98))), *(f"38;5;{n}" for n in (0, 16, 21, 226, 231))]
    codes += [*(f"{code}" for code in (*range(40, 48), *range(100, 108))), "48;5;226", "48;2;10;10;10", "7"]
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    console = _console(page, double, [line(i + 1, f"\x1b[{code}mtext") for i, code in enumerate(codes)])
    expect(console.row(1)).to_be_visible()
    contrasts = page.evaluate(CONTRASTS)
    assert [code for code, contrast in zip(codes, contrasts, strict=True) if contrast < 3] == []


# As WCAG 2 has it; what is transparent shows the panel.
CONTRASTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const bytes = css => { canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = css => bytes(css).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const panel = getComputedStyle(document.querySelector('.log-frame')).backgroundColor;
    return [...document.querySelectorAll('[data-testid=log-row]')].map(row => {
        const style = getComputedStyle(row.querySelector('.log-text > span'));
        const behind = style.backgroundColor === 'rgba(0, 0, 0, 0)' ? panel : style.backgroundColor;
        const [low, high] = [light(style.color), light(behind)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    });
}"""


def test_what_ranks_print_is_text_and_never_markup(page: Page, double: CollectorDouble) -> None:
    hostile = line(1, HOSTILE, host=HOSTILE, rank=1)
    console = _console(page, double, [hostile, line(2, HOSTILE, stream="note")], "&line=1")
    for row in (console.row(1), console.row(2)):
        expect(row).to_contain_text("<script>document.title='owned'</script><img src=x onerror=")
        expect(row).to_contain_text("^[]8;;javascript:")
        expect(row).to_contain_text("‹U+202E›denwo‹U+202C›")
    expect(console.part("whole")).to_contain_text("<img src=x")
    for number in (1, 2):
        expect(console.row(number).locator(".log-text *")).to_have_count(0)
    assert page.locator("img[src=x], #app script, [data-testid=console] a[href^=javascript]").count() == 0
    assert "owned" not in page.title()


def test_a_long_line_is_cut_and_whole_once_it_is_chosen(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, [line(1, "x" * 50_000 + "the end")])
    row = console.row(1)
    expect(row).to_contain_text("more")
    expect(row).not_to_contain_text("the end")
    expect(row).to_have_js_property("offsetHeight", 18)
    row.get_by_role("link").click()
    expect(console.part("whole")).to_contain_text("xthe end")


def test_lines_of_which_few_come_at_once_are_all_there(page: Page, double: CollectorDouble) -> None:
    double.state.logs.most = 60
    console = _console(page, double, _lines(1_000))
    console.expect_in_sight(console.row(1_000))
    for number in (700, 300, 1):
        console.scroll_to((number - 1) / 1_000)
        console.expect_in_sight(console.row(number + 5))
    expect(console.part("total")).to_have_text("1,000 lines")


def test_notes_of_what_was_not_kept_stand_apart(page: Page, double: CollectorDouble) -> None:
    text = "[12,345 lines (1.2 MB) were not kept: too fast]"
    console = _console(page, double, [line(1), line(2, text, stream="note"), line(3)])
    note = console.with_text("were not kept")
    expect(note).to_have_attribute("data-stream", "note")
    expect(note).to_have_class(re.compile(r"\bnote\b"))


# -- choices ---------------------------------------------------------------------------------------------------------


def test_ranks_are_chosen_by_a_list_and_by_their_cells(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, [line(number, rank=number % 4) for number in range(1, 41)])
    console.part("ranks").fill("0-1,3")
    console.part("ranks").press("Enter")
    expect(console.part("total")).to_have_text("30 lines")
    expect(page).to_have_url(re.compile("ranks=0-1%2C3"))
    console.part("ranks").fill("two")
    console.part("ranks").press("Enter")
    expect(console.part("error")).to_contain_text("0-7,16")
    expect(console.part("total")).to_have_text("30 lines")
    RunPage(page, double.url, "r1").cell(1).click()
    expect(console.part("total")).to_have_text("20 lines")
    expect(console.part("ranks")).to_have_value("0,3")


def test_a_stream_is_chosen(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, [line(1), line(2, stream="stderr"), line(3)])
    console.part("stream").get_by_text("stderr").click()
    expect(console.rows).to_have_count(1)
    expect(console.row(2)).to_be_visible()


def test_the_same_line_of_many_ranks_is_one(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=64)
    double.state.logs.lines = [line(n + 1, "NCCL up", rank=n, time=1_700_000_000 + n / 100) for n in range(64)]
    console = ConsolePage(page, double.url, "r1").open()
    expect(console.rows).to_have_count(1)
    expect(console.rows).to_contain_text("×64 [0-63]")
    expect(console.part("total")).to_have_text("64 lines")
    console.part("fold").click()
    expect(console.row(64)).to_be_visible()


def test_lines_that_one_rank_alone_printed_are_brought_up(page: Page, double: CollectorDouble) -> None:
    lines = [line(n + 1, f"step {n} ok", rank=n % 2) for n in range(20)]
    console = _console(page, double, [*lines, line(21, "out of memory", rank=1)])
    expect(console.row(20)).to_be_visible()
    console.part("odd").click()
    expect(console.rows).to_have_count(1)
    expect(console.row(21)).to_be_visible()


def test_the_download_has_the_same_filters(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(3), "&ranks=0&stream=stdout&q=line")
    href = console.part("download").get_attribute("href") or ""
    path, _, query = href.partition("?")
    assert path == "/api/runs/r1/logs.txt"
    assert {"ranks=0", "stream=stdout", "grep=line", "fold=true"} <= set(query.split("&"))


# -- search ----------------------------------------------------------------------------------------------------------


def test_a_search_shows_the_lines_that_match_with_the_match_marked(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(300))
    expect(console.row(300)).to_be_visible()
    console.page.keyboard.press("/")
    console.page.keyboard.type("e 1.9")
    expect(console.part("total")).to_have_text("10 lines")
    expect(console.row(199).locator("mark")).to_have_text("e 199")
    page.reload()
    expect(console.part("total")).to_have_text("10 lines")


def test_n_goes_from_match_to_match_among_all_lines(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(5_000), "&q=00$&matches=0&line=1950")
    console.expect_in_sight(console.row(1_950))
    for key, number, place in (("n", 2_000, 20), ("n", 2_100, 21), ("N", 2_000, 20), ("N", 1_900, 19)):
        page.keyboard.press(key)
        expect(console.part("matches")).to_have_text(f"{place} of 50 matches")
        expect(page).to_have_url(re.compile(f"line={number}"))
        console.expect_in_sight(console.row(number))
    expect(console.part("total")).to_have_text("5,000 lines")


def test_behind_the_last_match_comes_the_first(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(300), "&q=100|200&matches=0&line=200")
    expect(console.row(200)).to_have_class(re.compile("chosen"))
    expect(console.part("whole")).to_contain_text("line 200")
    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("line=100"))
    page.keyboard.press("N")
    expect(page).to_have_url(re.compile("line=200"))


def test_a_search_that_makes_no_sense_is_told_in_a_line(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(5))
    expect(console.row(5)).to_be_visible()
    console.search("(a")
    expect(console.part("error")).to_contain_text("missing closing )")
    expect(console.row(5)).to_be_visible()
    console.search("line 3")
    expect(console.part("error")).to_have_count(0)
    expect(console.rows).to_have_count(1)


# -- a link to a line ------------------------------------------------------------------------------------------------


def test_the_address_of_a_line_leads_there(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(5_000))
    console.scroll_to(0.3)
    row = console.row(1_500)
    row.get_by_role("link").click()
    expect(row).to_have_class(re.compile("chosen"))
    expect(page).to_have_url(re.compile("line=1500"))
    page.reload()
    console.expect_in_sight(row)
    expect(row).to_have_class(re.compile("chosen"))
    expect(console.part("whole")).to_contain_text("line 1500")


def test_a_link_to_a_line_that_was_folded_leads_to_the_one_that_shows_it(page: Page, double: CollectorDouble) -> None:
    lines = _lines(2_000)
    lines[999:1003] = [line(1000 + n, "same", rank=n) for n in range(4)]
    console = _console(page, double, lines, "&line=1003")
    console.expect_in_sight(console.row(1_000))
    expect(console.part("whole")).to_contain_text("rank 3")


def test_a_link_to_a_line_that_the_filters_leave_out_says_so(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(50), "&line=20&q=line+3")
    expect(console.part("error")).to_contain_text("not among those shown")


def test_a_bar_that_is_moved_while_the_lines_are_drawn_stays_where_it_is(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(5_000))
    console.expect_in_sight(console.row(5_000))
    page.get_by_test_id("log").evaluate(
        """log => { log.scrollTop = 0.3 * (log.scrollHeight - log.clientHeight);
            document.querySelector('[data-testid="log-times"]').click(); }"""
    )
    expect(page.locator("[data-testid=log-row] time").first).to_be_visible()
    console.expect_in_sight(console.row(1_500))


def test_a_step_may_be_asked_for_before_there_are_lines(page: Page, double: CollectorDouble) -> None:
    held: list[Route] = []
    is_held = True

    def hold(route: Route) -> None:
        if is_held:
            held.append(route)
        else:
            route.continue_()

    page.route("**/logs?**", hold)
    double.state.logs.steps = {1204: 700}
    console = _console(page, double, _lines(3_000))
    console.part("step").fill("1204")
    console.part("step").press("Enter")
    is_held = False
    for route in held:
        route.continue_()
    console.expect_in_sight(console.row(700))


def test_a_place_that_is_found_late_moves_nobody_who_has_gone_elsewhere_since(
    page: Page, double: CollectorDouble
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "step=1204" in route.request.url or "step%3D1204" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    page.route("**/logs?**", hold)
    double.state.logs.steps = {1204: 700, 1300: 2_000}
    console = _console(page, double, _lines(3_000))
    console.part("step").fill("1204")
    with page.expect_request(lambda request: "/logs?" in request.url and "1204" in request.url):
        console.part("step").press("Enter")
    console.part("step").fill("1300")
    console.part("step").press("Enter")
    console.expect_in_sight(console.row(2_000))
    with page.expect_response(lambda response: response.request == held[0].request):
        held[0].continue_()
    # What the answer would set off is done by the time that another one has come and been shown.
    console.part("times").click()
    expect(console.row(2_000).locator("time")).to_be_visible()
    console.expect_in_sight(console.row(2_000))
    expect(page).to_have_url(re.compile("line=2000"))


def test_a_step_leads_to_the_lines_around_it(page: Page, double: CollectorDouble) -> None:
    double.state.logs.steps = {1204: 700}
    console = _console(page, double, _lines(3_000))
    console.part("step").fill("1204")
    console.part("step").press("Enter")
    console.expect_in_sight(console.row(700))
    console.part("step").fill("9")
    console.part("step").press("Enter")
    expect(console.part("error")).to_contain_text("step=9")


# -- following -------------------------------------------------------------------------------------------------------


def test_new_lines_come_into_sight_by_themselves(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(200))
    console.expect_in_sight(console.row(200))
    double.state.logs.lines = _lines(400)
    double.emit("logs", run="r1")
    console.expect_in_sight(console.row(400))
    expect(console.part("total")).to_have_text("400 lines")


def test_who_scrolls_up_is_let_alone_and_a_button_leads_back(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(1_000))
    console.expect_in_sight(console.row(1_000))
    log = page.get_by_test_id("log")
    read = log.evaluate("log => log.scrollTop") - 3_000
    console.wheel(-3_000)
    expect(console.part("end")).to_be_visible()
    wait_until(lambda: log.evaluate("log => log.scrollTop") == read, "the wheel has come to rest", timeout_s=60)
    double.state.logs.lines = _lines(1_500)
    double.emit("logs", run="r1")
    expect(console.part("total")).to_have_text("1,500 lines")
    assert log.evaluate("log => log.scrollTop") == read
    console.part("end").click()
    console.expect_in_sight(console.row(1_500))
    expect(console.part("end")).to_have_count(0)


def test_a_progress_bar_moves_in_its_place(page: Page, double: CollectorDouble) -> None:
    double.state.logs.open = [open_line("epoch 1:  10%")]
    console = _console(page, double, _lines(3))
    expect(console.rows).to_have_count(4)
    expect(console.rows.last).to_contain_text("10%")
    double.state.logs.open = [open_line("epoch 1:  90%"), open_line("val: 5%", line=1)]
    double.emit("logs", run="r1")
    expect(console.rows.nth(3)).to_contain_text("90%")
    expect(console.rows.nth(4)).to_contain_text("val: 5%")


def test_more_than_can_be_taken_in_at_once_is_asked_for_anew(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(100))
    console.expect_in_sight(console.row(100))
    double.state.logs.lines = _lines(9_000)
    double.emit("logs", run="r1")
    console.expect_in_sight(console.row(9_000))
    expect(console.part("total")).to_have_text("9,000 lines")
    console.scroll_to(0)
    console.expect_in_sight(console.row(1))


def test_what_came_unannounced_is_in_its_place_and_never_there_twice(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(3_000))
    console.expect_in_sight(console.row(3_000))
    late = line(3_001, "late", time=line(2)["time"] + 0.5)
    double.state.logs.lines = [*_lines(3_000), late, *(line(number) for number in range(3_002, 3_011))]
    page.keyboard.press("g")
    expect(console.part("total")).to_have_text("3,010 lines")
    expect(console.rows.nth(2)).to_contain_text("late")
    expect(console.with_text("late")).to_have_count(1)
    expect(console.rows.nth(3)).to_have_attribute("data-number", "3")
    page.keyboard.press("G")
    console.expect_in_sight(console.row(3_010))
    expect(console.row(3_002)).to_have_count(1)


def test_keys_lead_to_both_ends(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(3_000))
    console.expect_in_sight(console.row(3_000))
    for key, number in (("g", 1), ("G", 3_000), ("Home", 1), ("End", 3_000)):
        page.keyboard.press(key)
        console.expect_in_sight(console.row(number))


def test_a_page_that_could_not_be_fetched_is_asked_for_again(page: Page, double: CollectorDouble) -> None:
    console = _console(page, double, _lines(3_000))
    console.expect_in_sight(console.row(3_000))
    double.state.trouble = True
    page.keyboard.press("g")
    expect(console.part("error")).to_contain_text("failed on this request")
    double.state.trouble = False
    console.expect_in_sight(console.row(1))
    expect(console.part("error")).to_have_count(0)


# -- last words ------------------------------------------------------------------------------------------------------


def test_a_rank_that_failed_is_shown_with_its_last_words(page: Page, double: CollectorDouble) -> None:
    _run(double)
    double.state.ranks[1] = rank(1, "failed", ended_at=10.0, exit_code=1)
    double.state.logs.lines = [line(n, f"word {n}", rank=n % 2) for n in range(1, 101)]
    RunPage(page, double.url, "r1").open()
    words = page.get_by_test_id("last-words")
    expect(words.get_by_test_id("log-text")).to_have_text([f"word {n}" for n in range(85, 101, 2)])
    page.get_by_test_id("last-words-link").click()
    console = ConsolePage(page, double.url, "r1")
    console.expect_in_sight(console.row(99))
    expect(console.row(99)).to_have_class(re.compile("chosen"))
    expect(console.part("total")).to_have_text("50 lines")


# -- a real collector ------------------------------------------------------------------------------------------------


def test_a_million_lines_are_gone_through_at_ease(page: Page, tmp_path: Path) -> None:
    collector = CollectorProcess(tmp_path / "home")
    with collector:
        pass
    _print_many(collector.database)
    with collector:
        console = ConsolePage(page, collector.http, "many").open()
        expect(console.part("total")).to_have_text("1,000,000 lines")
        console.expect_in_sight(console.with_text(f"line {MANY} of"))
        console.scroll_to(0.5)
        console.expect_in_sight(console.with_text(f"line {MANY // 2} of"))
        assert console.rows.count() < 150
        page.keyboard.press("g")
        console.expect_in_sight(console.with_text("line 1 of"))
        console.wheel(18 * 1_000)
        console.expect_in_sight(console.with_text("line 1001 of"))
        page.keyboard.press("G")
        console.expect_in_sight(console.with_text(f"line {MANY} of"))
        console.search("^line 77[0-9]{3}5 of")
        expect(console.part("total")).to_have_text("1,000 lines")
        assert console.rows.count() < 150


def _print_many(database: Path) -> None:
    """A million lines of four ranks, put straight into the database of a collector that has ended."""
    with duckdb.connect(str(database)) as connection:
        connection.execute("INSERT INTO runs VALUES (1, 'many', 'p', NULL, NULL, NULL, '[]', 1700000000000000000)")
        connection.execute("INSERT INTO attempts VALUES (1, 1, 'l', 1700000000000000000)")
        connection.execute("""
            INSERT INTO writers SELECT rank, format('{:032x}', rank), 1, 1, rank, rank, 4, 'rank',
                'node-' || rank // 2, 1, '{}', 1700000000000000000 FROM range(4) writer(rank)""")
        connection.execute("INSERT INTO states SELECT writer, opened_ns, 'finished', '{}' FROM writers")
        connection.execute("INSERT INTO positions SELECT writer, 1, NULL, opened_ns, 0 FROM writers")
        connection.execute(f"""
            INSERT INTO lines SELECT n, n % 4, 1, n // 4, 1700000000000000000 + n * 1000000,
                format('line {{}} of rank {{}}: \x1b[32mloss\x1b[0m {{:.4f}}', n, n % 4, 1e4 / n)
            FROM range(1, {MANY} + 1) many(n)""")
