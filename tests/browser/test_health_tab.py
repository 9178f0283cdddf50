"""The health tab in a real browser: where ranks stand, how they fared, who is waited for, what differs."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from playwright.sync_api import expect
from tests.browser.double import CREATED, rank, run, stack, stack_group
from tests.browser.pages import RunPage
from tests.browser.test_modules import call
from tests.support.collector import CollectorProcess
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from playwright.sync_api import Locator, Page
    from tests.browser.double import CollectorDouble

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
WAITING = (("/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", 2810, "all_reduce"),)
TRAIN = ("/home/me/train.py", 88, "Trainer.step")
DATA = ("/home/me/data.py", 41, "Loader.__next__")
STATES = ["expected", "running", "stalled", "unreachable", "dead", "failed", "finished"]
EXPECTED, RUNNING, STALLED, DEAD = (STATES.index(name) for name in ("expected", "running", "stalled", "dead"))
SECOND_NS = 10**9
FROM_NS = round(CREATED) * SECOND_NS


def _run(double: CollectorDouble, ranks: int = 64, state: str = "running") -> None:
    double.state.runs = [run("r1", world_size=ranks, ranks_seen=ranks, state=state)]
    double.state.ranks = [rank(number, state) for number in range(ranks)]


def _stuck(*, ranks: int = 64, odd: int = 17) -> dict[str, Any]:
    """All ranks but one in a collective."""
    others = [number for number in range(ranks) if number != odd]
    stacks = [stack(number, *WAITING, TRAIN) for number in others] + [stack(odd, DATA, TRAIN)]
    return {
        "asked_at": time.time() - 5,
        "text": "two groups",
        "groups": [
            stack_group("all_reduce train.py:88", others),
            stack_group("__next__ data.py:41", [odd], function="__next__"),
        ],
        "ranks": stacks,
    }


# -- stacks ----------------------------------------------------------------------------------------------------------


def test_without_stacks_the_tab_says_how_to_get_them(page: Page, double: CollectorDouble) -> None:
    _run(double)
    RunPage(page, double.url, "r1").open("?tab=health")
    expect(page.get_by_test_id("stacks")).to_contain_text("No stacks yet: when most ranks stand still")
    expect(page.get_by_test_id("stacks")).to_contain_text("allranks stacks r1")


def test_stacks_come_by_themselves_and_each_shows_its_line(page: Page, double: CollectorDouble) -> None:
    _run(double)
    RunPage(page, double.url, "r1").open("?tab=health")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    double.state.health["stacks"] = _stuck()
    double.emit("stacks", run="r1", token="t")
    groups = page.locator("#stacks .stack-group")
    expect(groups).to_have_count(2)
    for text in ("[0-16, 18-63]", "×63", "in all_reduce train.py:88", "step"):
        expect(groups.nth(0)).to_contain_text(text)
    expect(groups.nth(1)).to_contain_text("[17]")
    assert not [asked for asked in double.asked_for("/stacks") if asked.params.get("threads") != ["false"]]
    groups.nth(0).locator("summary").click()
    expect(groups.nth(0).locator(".frames li")).to_have_count(2)
    expect(groups.nth(0).locator(".frames li.here")).to_have_text("/home/me/train.py:88 in Trainer.step")
    groups.nth(0).get_by_test_id("stack-rank").select_option("42")
    expect(groups.nth(0).get_by_test_id("stack")).to_have_attribute("data-rank", "42")


def test_the_button_asks_all_ranks(page: Page, double: CollectorDouble) -> None:
    _run(double)
    RunPage(page, double.url, "r1").open("?tab=health")
    page.get_by_test_id("ask-stacks").click()
    expect(page.get_by_test_id("stacks")).to_contain_text("no rank of the run is there to be asked")
    double.state.answer = _stuck()
    page.get_by_test_id("ask-stacks").click()
    expect(page.locator("#stacks .stack-group")).to_have_count(2)
    expect(page.get_by_test_id("stacks")).not_to_contain_text("no rank of the run")


def test_where_most_ranks_stand_still_the_verdict_shows_where(page: Page, double: CollectorDouble) -> None:
    _run(double, state="stalled")
    double.state.why = {
        "outcome": "stalled", "first": None, "stalled": [{"rank": 17}], "roll_call": {"missing": []},
        "lines": ["64 ranks stand still", "they stand: two groups"], "stands": "two groups",
    }  # fmt: skip
    double.state.health["stacks"] = _stuck()
    RunPage(page, double.url, "r1").open()
    places = page.get_by_test_id("verdict").locator(".stack-group")
    expect(places).to_have_count(2)
    expect(page.get_by_test_id("verdict")).not_to_contain_text("they stand:")
    expect(places.nth(1)).to_contain_text("[17] in __next__ data.py:41")
    places.nth(1).click()
    expect(page.locator("#stacks [data-ranks='17'] .frames li.here")).to_contain_text("data.py:41")
    expect(page.get_by_test_id("verdict").locator(".stack-group")).to_have_count(0)
    expect(page.get_by_test_id("verdict")).to_contain_text("they stand: two groups")


def test_a_stack_is_text_and_never_markup(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=2)
    frame = (f"/{HOSTILE}/a.py", 1, HOSTILE)
    double.state.health["stacks"] = {
        "asked_at": 1.0, "text": HOSTILE, "ranks": [stack(0, frame), stack(1, how="none", reason=HOSTILE)],
        "groups": [
            stack_group("x a.py:1", [0], wait=HOSTILE, function=HOSTILE, file=HOSTILE),
            stack_group(HOSTILE, [1], answered=False, file="", line=0),
        ],
    }  # fmt: skip
    RunPage(page, double.url, "r1").open("?tab=health&stack=0")
    expect(page.locator(".frames")).to_contain_text(HOSTILE)
    page.locator("#stacks [data-ranks='1'] summary").click()
    expect(page.locator("#stacks")).to_contain_text(f"There is no stack of rank 1: {HOSTILE}.")
    assert page.locator("img[src=x], #app script").count() == 0


def test_a_stalled_rank_leads_to_its_stack(page: Page, double: CollectorDouble) -> None:
    _run(double)
    double.state.ranks[17] = rank(17, "stalled", reason="no step after 99 for 12 s")
    double.state.health["stacks"] = _stuck()
    run_page = RunPage(page, double.url, "r1").open()
    run_page.cell(17).hover()
    expect(page.get_by_role("tooltip")).to_contain_text("__next__ data.py:41")
    run_page.problems.get_by_test_id("rank-stack").click()
    expect(page.locator("#stacks [data-ranks='17'] .frames li.here")).to_contain_text("data.py:41")
    assert [asked.params["ranks"] for asked in double.asked_for("/stacks") if "ranks" in asked.params] == [["17"]]


def test_a_rank_that_gets_stuck_shows_by_itself_where(page: Page, tmp_path: Path) -> None:
    with CollectorProcess(tmp_path / "home", {"ALLRANKS_STALL_MIN_S": "1"}) as collector:
        job = Job(collector.home, collector.url, program="standing")
        with job.ranks(3, "queue", "nap", "queue"):
            wait_until(lambda: len(collector.ranks(RUN)) == 3, "all ranks are known", timeout_s=60)
            RunPage(page, collector.http, RUN).open("?tab=health")
            groups = page.locator("#stacks .stack-group")
            expect(groups).to_have_count(2)
            expect(groups.nth(0)).to_contain_text("in Queue.get standing.py:")
            expect(groups.nth(0)).to_have_attribute("data-ranks", "0,2")
            groups.nth(1).locator("summary").click()
            expect(groups.nth(1).locator(".frames li.here")).to_contain_text(re.compile(r"standing\.py:\d+ in nap"))
            expect(page.locator("#timeline [data-state=stalled]")).to_contain_text("3")
            page.get_by_test_id("tab-charts").click()
            expect(page.get_by_test_id("verdict").locator(".stack-group")).to_have_count(2)


# -- timeline --------------------------------------------------------------------------------------------------------


def _timeline(double: CollectorDouble, ranks: int, odd: dict[int, list[tuple[int, int, int]]]) -> None:
    """Ranks that came after a second and run, for 1,000 s; but for the odd ones: (state, from, until), in seconds."""
    usual = [(EXPECTED, 0, 1), (RUNNING, 1, 1000)]
    double.state.health["timeline"] = {
        "from_ns": FROM_NS,
        "until_ns": FROM_NS + 1000 * SECOND_NS,
        "states": STATES,
        "ranks": [
            {"rank": number, "attempt": 1, "host": f"node-{number // 8}"}
            | {
                "spans": [
                    [state, FROM_NS + begin * SECOND_NS, FROM_NS + end * SECOND_NS]
                    for state, begin, end in odd.get(number, usual)
                ]
            }
            for number in range(ranks)
        ],
    }


def _colours(canvas: Locator, x: float) -> set[str]:
    """All colours on the canvas around this share of its drawing's width."""
    script = """(canvas, x) => {
        const pen = canvas.getContext('2d'), left = 44;
        const at = Math.round(left + x * (canvas.width - left)) - 3;
        const {data} = pen.getImageData(at, 16, 6, canvas.height - 36);
        const found = new Set();
        for (let i = 0; i < data.length; i += 4) found.add([...data.slice(i, i + 3)].join(' '));
        return [...found]; }"""
    return set(canvas.evaluate(script, x))


def _colour(page: Page, state: str) -> str:
    """A state's colour in the rank grid, as `_colours` has it."""
    found = page.evaluate(
        "state => getComputedStyle(document.documentElement).getPropertyValue('--' + state).trim()", state
    )
    return " ".join(str(int(found[at : at + 2], 16)) for at in (1, 3, 5))


def _at_rest(page: Page, ranks: int) -> Locator:
    """The timeline's canvas, once all that stands above it has come: from now on it stays where it is."""
    expect(page.get_by_test_id("rank-cell")).to_have_count(ranks)
    expect(page.get_by_test_id("stacks")).to_contain_text("No stacks yet")
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    return page.get_by_test_id("timeline-canvas")


def _x(canvas: Locator, share: float) -> float:
    """A share of the drawing's width, in pixels of the canvas."""
    width = canvas.evaluate("canvas => canvas.clientWidth")
    return 44 + float(width - 44) * share


def test_of_a_thousand_ranks_the_one_that_stalled_for_a_moment_is_seen(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=1024)
    _timeline(double, 1024, {700: [(RUNNING, 0, 500), (STALLED, 500, 501), (RUNNING, 501, 900), (DEAD, 900, 1000)]})
    RunPage(page, double.url, "r1").open("?tab=health")
    canvas = page.get_by_test_id("timeline-canvas")
    legend = ["dead 1", "stalled 1", "expected 1,023", "running 1,024"]
    expect(page.get_by_test_id("timeline-state")).to_have_text(legend)
    wait_until(lambda: _colour(page, "stalled") in _colours(canvas, 0.5005), "the stall is painted", timeout_s=60)
    assert _colour(page, "stalled") not in _colours(canvas, 0.25)
    assert _colour(page, "dead") in _colours(canvas, 0.95)
    assert canvas.evaluate("canvas => canvas.clientHeight") <= 560


def test_the_timeline_tells_who_was_what_since_when_and_how_long(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=1024)
    _timeline(double, 1024, {700: [(RUNNING, 0, 400), (STALLED, 400, 600), (RUNNING, 600, 1000)]})
    RunPage(page, double.url, "r1").open("?tab=health")
    canvas = _at_rest(page, ranks=1024)
    canvas.hover(position={"x": _x(canvas, 0.5), "y": 4 + 512 * 700.5 / 1024})
    hint = page.locator("#timeline").get_by_role("tooltip")
    for text in ("rank 700", "stalled", "node-87", "3m 20s"):
        expect(hint).to_contain_text(text)
    canvas.focus()
    page.keyboard.press("ArrowDown")
    for text in ("rank 1", "running", "so far"):
        expect(hint).to_contain_text(text)
    page.keyboard.press("ArrowLeft")
    for text in ("rank 1", "expected", "1s"):
        expect(hint).to_contain_text(text)


def test_a_drag_shows_a_part_of_the_time(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=16)
    _timeline(double, 16, {7: [(RUNNING, 0, 400), (STALLED, 400, 600), (RUNNING, 600, 1000)]})
    RunPage(page, double.url, "r1").open("?tab=health")
    canvas = _at_rest(page, ranks=16)
    stalled = _colour(page, "stalled")
    wait_until(lambda: stalled in _colours(canvas, 0.5), "the stall is painted in the middle", timeout_s=60)
    assert stalled not in _colours(canvas, 0.05)
    canvas.hover(position={"x": _x(canvas, 0.42), "y": 50})
    page.mouse.down()
    for share in (0.5, 0.58):
        canvas.hover(position={"x": _x(canvas, share), "y": 50})
    page.mouse.up()
    wait_until(lambda: stalled in _colours(canvas, 0.05), "the part is painted from side to side", timeout_s=60)
    page.get_by_test_id("timeline-window").get_by_text("all").click()
    wait_until(lambda: stalled not in _colours(canvas, 0.05), "all of it is painted", timeout_s=60)


def test_only_ranks_that_were_not_always_well_can_be_shown(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=64)
    _timeline(double, 64, {9: [(RUNNING, 0, 10), (STALLED, 10, 20), (RUNNING, 20, 1000)]})
    RunPage(page, double.url, "r1").open("?tab=health")
    page.get_by_test_id("timeline-only").get_by_text("the 1 not always well").click()
    expect(page.get_by_test_id("timeline-canvas")).to_have_attribute("data-rows", "1")


def test_of_what_falls_on_one_pixel_the_worst_is_painted_last(page: Page, double: CollectorDouble) -> None:
    def row(number: int, *spans: tuple[str, float, float]) -> dict[str, Any]:
        keys = ("state", "from", "until")
        return {"rank": number, "spans": [dict(zip(keys, span, strict=True)) for span in spans]}

    rows = [row(0, ("dead", 50, 100)), row(1, ("running", 0, 50), ("stalled", 50, 50.1), ("running", 50.1, 100))]
    area = {"from": 0, "until": 100, "width": 100, "height": 1}
    painted = call(page, double, "timeline", "rectangles", rows, area)
    assert [each["state"] for each in painted] == ["running", "running", "stalled", "dead"]
    assert (painted[2]["x"], painted[2]["width"], painted[2]["height"]) == (50, 3, 3)
    at = call(page, double, "timeline", "spanAt", rows, area, 52, 1)
    assert (at["row"], at["span"]["state"]) == (0, "dead")
    at = call(page, double, "timeline", "spanAt", rows[1:], area, 52, 0)
    assert at["span"]["state"] == "stalled"


# -- attempts --------------------------------------------------------------------------------------------------------


def _attempt(number: int, state: str, steps: tuple[int, int] | None, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "attempt": number, "began_ns": FROM_NS + number * 1000 * SECOND_NS,
        "ended_ns": FROM_NS + (number * 1000 + 600) * SECOND_NS, "state": state,
        "first_step": steps and steps[0], "last_step": steps and steps[1], "resumed_from": None, "recomputed": 0,
        "why": None,
    }  # fmt: skip
    return values | fields


def test_attempts_show_what_was_done_again_and_where_the_time_went(page: Page, double: CollectorDouble) -> None:
    _run(double)
    double.state.health["attempts"] = {
        "attempts": [
            _attempt(1, "failed", (0, 999), why=f"rank 3 {HOSTILE}"),
            _attempt(2, "failed", None, why="rank 0 failed first"),
            _attempt(3, "running", (800, 1800), resumed_from=800, recomputed=200, ended_ns=None),
        ],
        "goodput": {
            "fraction": 0.75, "total_s": 4000.0, "productive_s": 3000.0, "init_s": 100.0, "stalled_s": 0.0,
            "detection_s": 300.0, "restart_s": 200.0, "recomputation_s": 400.0,
        },
    }  # fmt: skip
    RunPage(page, double.url, "r1").open("?tab=health")
    expect(page.get_by_test_id("goodput")).to_contain_text("75.0 % of 1h 6m went into steps that count")
    parts = page.locator(".goodput-bar i")
    expect(parts).to_have_count(5)  # nothing was stalled
    expect(page.get_by_role("img", name=re.compile("productive 75.0 %.*restart 5.0 %"))).to_be_visible()
    rows = page.get_by_test_id("attempt")
    for text in ("failed", "10m", "0–999", f"rank 3 {HOSTILE}"):
        expect(rows.nth(0)).to_contain_text(text)
    expect(rows.nth(1)).to_contain_text("none")
    for text in ("goes on", "800–1,800", "200 steps from 800"):
        expect(rows.nth(2)).to_contain_text(text)
    expect(page.locator("#attempts .again")).to_have_count(1)
    assert page.locator("img[src=x], #app script").count() == 0


# -- stragglers ------------------------------------------------------------------------------------------------------


def _straggler(number: int, lost_s: float, *, slow: bool) -> dict[str, Any]:
    return {
        "rank": number, "host": f"node-{number // 8}", "lost_s": lost_s, "rank_hours": lost_s * 64 / 3600,
        "slow": slow, "section": "data", "sections": {"data": lost_s * 0.9, "forward": lost_s * 0.1},
        "worst_steps": [100, 199],
    }  # fmt: skip


def test_stragglers_are_ranked_by_what_they_cost_with_the_section_that_costs_it(
    page: Page, double: CollectorDouble
) -> None:
    _run(double)
    double.state.health["stragglers"] |= {
        "measured": 64, "seconds": 3600.0, "lost_s": 450.0, "rank_hours": 8.0,
        "ranks": [_straggler(17, 450.0, slow=True), *(_straggler(number, 0.1, slow=False) for number in range(9))],
        "hosts": [{"host": "node-2", "lost_s": 450.0, "earlier": [{"run": "before", "lost_s": 90.0}]}],
    }  # fmt: skip
    RunPage(page, double.url, "r1").open("?tab=health")
    stragglers = page.locator("#stragglers")
    for text in ("7m 30s of 1h", "64 ranks", "8.00 GPU-hours"):
        expect(stragglers).to_contain_text(text)
    rows = page.get_by_test_id("straggler")
    expect(rows).to_have_count(1)
    for text in ("17", "node-2", "7m 30s", "8.000", "12.5 %", "slow", "data 6m 45s", "forward 45.0 s", "100–199"):
        expect(rows).to_contain_text(text)
    expect(page.get_by_test_id("slow-host")).to_contain_text("node-2 7m 30s in this run; slow in 1 earlier run too")
    expect(page.get_by_test_id("slow-host").get_by_role("link")).to_have_attribute("href", "/runs/before")
    stragglers.get_by_role("button", name="and 9 more ranks").click()
    expect(rows).to_have_count(10)


# -- differences -----------------------------------------------------------------------------------------------------


def _group(value: str | None, count: int, ranks: str, *hosts: str) -> dict[str, Any]:
    return {"value": value, "count": count, "ranks": ranks, "hosts": list(hosts)}


def test_differences_are_grouped_and_values_that_diverge_stand_first(page: Page, double: CollectorDouble) -> None:
    _run(double)
    mostly = _group("2.4.0", 62, "0-16,18-40,42-63")
    double.state.health["differences"] |= {
        "ranks": 64, "told": 64, "compared": ["lr", "param_hash"],
        "differences": [
            {"section": "packages", "title": "package", "name": "torch", "each": None, "text": "",
             "groups": [mostly, _group(HOSTILE, 2, "17,41", "node-2")]},
            {"section": "env", "title": "environment", "name": "PORT", "each": "rank", "text": "",
             "groups": [_group(str(number), 1, str(number)) for number in range(64)]},
        ],
        "diverged": [
            {"name": "param_hash", "kind": "agree", "step": 1200, "text": "",
             "groups": [_group("a1", 63, "1-63"), _group(None, 1, "0")]},
        ],
    }  # fmt: skip
    RunPage(page, double.url, "r1").open("?tab=health")
    rows = page.get_by_test_id("difference")
    expect(rows).to_have_count(3)
    for text in ("param_hash", "diverged", "from step 1,200", "a1 on ranks 1-63", "not there on rank 0"):
        expect(rows.nth(0)).to_contain_text(text)
    for text in ("torch", "2.4.0 on ranks 0-16, 18-40, 42-63", f"{HOSTILE} on ranks 17, 41 (node-2)"):
        expect(rows.nth(1)).to_contain_text(text)
    expect(rows.nth(2)).to_contain_text("each rank has its own")
    assert page.locator("img[src=x], #app script").count() == 0


def test_of_a_run_without_health_data_the_tab_says_what_would_come(page: Page, double: CollectorDouble) -> None:
    _run(double)
    RunPage(page, double.url, "r1").open("?tab=health")
    for part, text in (
        ("timeline", "No states yet"),
        ("attempts", "No attempt yet"),
        ("stragglers", "Nothing measured yet"),
        ("differences", "Nothing told yet"),
    ):
        expect(page.locator(f"#{part}")).to_contain_text(text)
    expect(page.locator("#stragglers code").first).to_have_text('with run.section("data"):')
    expect(page.locator("#differences code")).to_have_text('run.agree("param_hash", value)')
