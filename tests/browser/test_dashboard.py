"""The dashboard over a real collector while a real training of four ranks goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.browser.pages import RunPage, RunsPage
from tests.support.ports import free_neighbours, free_port

from allranks_bus.home import read_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

WORLD_SIZE = 4
RUN = "live-run"


class Bench:
    """A collector and four ranks, each a process of its own.

    The ranks are told where it is: of a collector that they find by themselves they start another when it is gone.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        # Nothing of the launcher that the tests themselves may run under, nor of the user's own settings.
        foreign = ("ALLRANKS_", "SLURM_", "OMPI_", "PMI", "TORCHELASTIC_")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._env |= {"ALLRANKS_HOME": str(home), "ALLRANKS_SPOOL": str(home / "spool"), "ALLRANKS_RUN_ID": RUN}
        self._collector: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        self.ranks: list[subprocess.Popen[str]] = []
        self.url = ""
        self._data_url = ""
        self._ports = {"ALLRANKS_HTTP_PORT": str(free_port()), "ALLRANKS_DATA_PORT": str(free_neighbours())}

    def start_collector(self) -> None:
        """Starts it on free ports, the same ones as before after the first time; returns when it listens."""
        command = [sys.executable, "-m", "allranks_collector"]
        self._collector = subprocess.Popen(
            command, env=self._env | self._ports, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        assert self._collector.stderr is not None
        said: list[str] = []
        for line in self._collector.stderr:
            said.append(line)
            if " listens: " in line:
                break
        else:
            pytest.fail(f"the collector did not start:\n{''.join(said)}")
        self._drain = threading.Thread(target=_read_to_the_end, args=(self._collector.stderr,), daemon=True)
        self._drain.start()
        endpoint = read_endpoint(self.home)
        assert endpoint is not None
        self.url, self._data_url = endpoint.http, endpoint.url
        self._ports = {
            "ALLRANKS_HTTP_PORT": endpoint.http.rpartition(":")[2],
            "ALLRANKS_DATA_PORT": endpoint.url.rpartition(":")[2],
        }

    def kill_collector(self) -> None:
        if self._collector is None:
            return
        self._collector.kill()
        self._collector.wait()
        if self._drain is not None:
            self._drain.join(5)

    def start_ranks(self) -> None:
        """Starts the ranks as a launcher does, by their environment."""
        for rank in range(WORLD_SIZE):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD_SIZE, "LOCAL_WORLD_SIZE": WORLD_SIZE}
            env = self._env | {"ALLRANKS_URL": self._data_url} | {name: str(value) for name, value in place.items()}
            command = [sys.executable, "-m", "tests.browser.training"]
            self.ranks.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, text=True))

    def finish_ranks(self) -> None:
        """Lets the ranks that live end as they should."""
        for rank in self.ranks:
            assert rank.stdin is not None
            rank.stdin.close()
        for rank in self.ranks:
            rank.wait(60)

    def close(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.wait()
            assert rank.stdin is not None
            rank.stdin.close()
        self.kill_collector()


def _read_to_the_end(pipe: IO[str]) -> None:
    """A log that nobody reads would stop its writer at last."""
    with pipe:
        pipe.read()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        bench = Bench(tmp_path / "home")
        stack.callback(bench.close)
        bench.start_collector()
        bench.start_ranks()
        yield bench


def test_a_training_appears_in_the_list(page: Page, bench: Bench) -> None:
    row = RunsPage(page, bench.url).open().row(RUN)
    expect(row).to_have_attribute("data-state", "running")
    for text in ("live", "browser"):
        expect(row).to_contain_text(text)


def test_every_rank_is_seen_running(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    run_page = RunPage(page, bench.url, RUN)
    expect(run_page.cells).to_have_count(WORLD_SIZE)
    for rank in range(WORLD_SIZE):
        run_page.expect_rank(rank, "running")


def test_charts_move_while_the_training_goes_on(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    chart = RunPage(page, bench.url, RUN).chart("train/loss")
    chart.expect_drawn()
    seen = chart.points()
    chart.expect_more_points_than(seen)
    chart.expect_more_points_than(seen + 50 * WORLD_SIZE)


def test_each_rank_has_a_line_of_its_own(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    run_page = RunPage(page, bench.url, RUN)
    for rank in range(WORLD_SIZE):
        run_page.expect_rank(rank, "running")
    run_page.mode("lines")
    chart = run_page.chart("train/loss")
    chart.expect_drawn()
    chart.expect_tooltip(*(f"rank {rank}" for rank in range(WORLD_SIZE)))


def test_the_config_of_the_training_is_shown(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    RunPage(page, bench.url, RUN).tab("config")
    expect(page.get_by_test_id("config")).to_contain_text("depth")


def test_a_killed_rank_goes_dead_and_the_others_go_on(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    run_page = RunPage(page, bench.url, RUN)
    run_page.expect_rank(2, "running")
    bench.ranks[2].kill()
    run_page.expect_rank(2, "dead")
    expect(run_page.problems.first).to_have_attribute("data-ranks", "2")
    run_page.expect_rank(1, "running")


def test_a_training_that_ends_well_is_finished(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    run_page = RunPage(page, bench.url, RUN)
    for rank in range(WORLD_SIZE):
        run_page.expect_rank(rank, "running")
    bench.finish_ranks()
    for rank in range(WORLD_SIZE):
        run_page.expect_rank(rank, "finished")
    expect(page.get_by_test_id("run-header")).to_contain_text("finished")


def test_the_page_goes_on_over_a_killed_and_restarted_collector(page: Page, bench: Bench) -> None:
    RunsPage(page, bench.url).open().enter(RUN)
    run_page = RunPage(page, bench.url, RUN)
    chart = run_page.chart("train/loss")
    seen = chart.points()
    bench.kill_collector()
    expect(run_page.connection).to_have_attribute("data-state", "lost")
    bench.start_collector()
    expect(run_page.connection).to_have_attribute("data-state", "live")
    chart.expect_more_points_than(seen + 50 * WORLD_SIZE)
