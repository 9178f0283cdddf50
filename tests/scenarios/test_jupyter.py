"""Notebooks: cells that are run again, interrupted or fork, and kernels that are restarted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support import scenario
from tests.support.collector import clean_environment
from tests.support.notebook import Notebook, in_notebook


@pytest.fixture
def env(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The kernel's environment; what drives it keeps its files here too."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    # By this one ipykernel leaves the descriptors of its output alone, which it takes for itself in a user's kernel.
    return {name: text for name, text in clean_environment(home).items() if name != "PYTEST_CURRENT_TEST"}


def test_a_cell_that_begins_a_run_may_be_run_again(home: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    begin = "import allranks; run = allranks.init(project='nb', config={{'lr': {lr}}}); print(run.id)"

    async def act(notebook: Notebook) -> None:
        first = await notebook.run(begin.format(lr=0.1))
        assert first.stderr == ""
        run = first.printed.strip()
        await notebook.run("for i in range(3): run.log({'i': i})")
        again = await notebook.run(begin.format(lr=0.2))
        assert again.printed.strip() == run
        assert again.stderr == (
            f"allranks: init() was called again: the run {run} goes on (finish() it to begin another)\n"
        )
        await notebook.run("for i in range(3, 6): run.log({'i': i})")
        assert (await notebook.run("run.finish(); print(run.config.lr)")).printed == "0.2\n"
        another = await notebook.run(begin.format(lr=0.3))
        assert (another.printed.strip() != run, another.stderr) == (True, "")

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        assert len(stored.runs()) == 2
        (counter,) = (counter for run in stored.runs() for counter in stored.counters(run))
        assert counter.is_unbroken
        assert len(counter.steps) == 6


def test_a_cell_written_for_wandb_begins_another_run_each_time(
    home: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    cell = """
        import allranks.compat.wandb as wandb
        run = wandb.init(project="nb", config={"lr": 0.1})
        wandb.log({"i": 0})
        print(run.id)
    """

    async def act(notebook: Notebook) -> None:
        ids = {(await notebook.run(cell)).printed for _ in range(3)}
        assert len(ids) == 3
        await notebook.run("wandb.finish()")

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        assert [len(counter.steps) for run in stored.runs() for counter in stored.counters(run)] == [1, 1, 1]


def test_an_interrupted_cell_loses_nothing_and_the_next_one_goes_on(
    home: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    far = tmp_path / "far"
    told: list[int] = []

    async def act(notebook: Notebook) -> None:
        await notebook.run("import allranks, pathlib; run = allranks.init(project='nb'); returned = 0")
        cell = f"""
            while True:
                run.log({{'i': returned}}, returned)
                returned += 1
                if returned == 2000:
                    pathlib.Path({str(far)!r}).touch()
        """
        stopped = await notebook.interrupt_when(cell, far.exists)
        assert stopped.error == "KeyboardInterrupt"
        told.append(int((await notebook.run("print(returned)")).printed))
        await notebook.run("run.log({'after': 1}); run.finish()")

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        (counter,) = stored.counters(run)
        assert counter.is_unbroken
        assert len(counter.steps) - told[0] in (0, 1)
        assert stored.one("SELECT count(*) FROM points JOIN series USING (series) WHERE key = 'after'") == 1
        assert stored.states(run, 0)[-1] == "finished"


def test_what_was_logged_before_a_restart_of_the_kernel_is_stored(
    home: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    begin = "import allranks; run = allranks.init(project='nb')\nfor i in range({count}): run.log({{'i': i}})"

    async def act(notebook: Notebook) -> None:
        for count in (5000, 10):
            assert not (await notebook.run(begin.format(count=count))).error
            await notebook.restart()

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        counters = [counter for run in stored.runs() for counter in stored.counters(run)]
        assert sorted((len(counter.steps), counter.is_unbroken) for counter in counters) == [(10, True), (5000, True)]


def test_processes_that_a_cell_forks_log_and_print(home: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    async def act(notebook: Notebook) -> None:
        await notebook.run(
            """
            import multiprocessing, os, sys
            import allranks

            run = allranks.init(project="nb")
            run.log({"parent": 1})

            def work(number):
                for i in range(100):
                    run.log({"i": i})
                sys.stdout.write(f"child {number}\\n")
                sys.stdout.flush()
                return os.getpid()
            """
        )
        cell = """
            with multiprocessing.get_context("fork").Pool(3) as pool:
                pids = pool.map(work, range(6), chunksize=2)
            print("pids:", len(set(pids)))
        """
        forked = await notebook.run(cell)
        assert "pids: " in forked.printed
        for number in range(6):
            assert f"child {number}\n" in forked.printed
        await notebook.run("run.log({'parent': 2}); run.finish()")

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        counters = stored.counters(run)
        assert {counter.role for counter in counters} == {"child"}
        assert sum(len(counter.steps) for counter in counters) == 600
        for counter in counters:
            assert counter.steps.tolist() == list(range(len(counter.steps)))


def test_what_a_cell_prints_is_shown_beneath_it_and_kept_while_there_is_a_run(
    home: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    prints = """
        import os, subprocess, sys
        print("python")
        print("python too", file=sys.stderr)
        _ = subprocess.run(["sh", "-c", "echo child; echo child too >&2"])
    """

    async def shows_all(notebook: Notebook) -> None:
        shown = await notebook.run(prints)
        printed, stderr = shown.printed, shown.stderr
        deadline = time.monotonic() + 60
        # A thread of the kernel reads what children print, and may come to it in the next cell.
        while not ("child\n" in printed and "child too\n" in stderr) and time.monotonic() < deadline:
            shown = await notebook.run("pass")
            printed, stderr = printed + shown.printed, stderr + shown.stderr
        assert sorted(printed.split("\n")) == ["", "child", "python"]
        assert sorted(stderr.split("\n")) == ["", "child too", "python too"]

    async def act(notebook: Notebook) -> None:
        await shows_all(notebook)
        await notebook.run("import allranks; run = allranks.init(project='nb')")
        await shows_all(notebook)
        await notebook.run("run.finish()")
        await shows_all(notebook)

    in_notebook(tmp_path, env, act)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        # Only what was printed within the run. What a child prints the kernel reads, and tells its streams.
        assert sorted(stored.lines(run)[0]) == ["child", "python"]
        assert sorted(stored.lines(run, "stderr")[0]) == ["child too", "python too"]
