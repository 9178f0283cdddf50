"""The health tab in a real browser: where ranks stand, how they fared, who is waited for, what differs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.browser.double import rank, run, stack, stack_group
from tests.browser.pages import RunPage

if TYPE_CHECKING:
    from typing import Any

    from playwright.sync_api import Page
    from tests.browser.double import CollectorDouble

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
WAITING = (("/venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", 2810, "all_reduce"),)
TRAIN = ("/home/me/train.py", 88, "Trainer.step")
DATA = ("/home/me/data.py", 41, "Loader.__next__")

pytestmark = pytest.mark.timeout(60)


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
    double.state.stacks = _stuck()
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
        "lines": ["64 ranks stand still"],
    }  # fmt: skip
    double.state.stacks = _stuck()
    RunPage(page, double.url, "r1").open()
    places = page.get_by_test_id("verdict").locator(".stack-group")
    expect(places).to_have_count(2)
    expect(places.nth(1)).to_contain_text("[17] in __next__ data.py:41")
    places.nth(1).click()
    expect(page.locator("#stacks [data-ranks='17'] .frames li.here")).to_contain_text("data.py:41")
    expect(page.get_by_test_id("verdict").locator(".stack-group")).to_have_count(0)


def test_a_stack_is_text_and_never_markup(page: Page, double: CollectorDouble) -> None:
    _run(double, ranks=2)
    frame = (f"/{HOSTILE}/a.py", 1, HOSTILE)
    double.state.stacks = {
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
