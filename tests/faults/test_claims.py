"""A process in another's place, for real: it is said, its data is its own, and the ranks are as well as before."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import Any

from tests.support.collector import CollectorProcess, clean_environment
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

from allranks_collector.claims import SAME_S

_WITHIN_S = 60.0
_CLI = "import sys; from allranks_collector.cli import main; sys.exit(main())"
# As on two hosts: nothing tells the launches of these processes from each other.
_ONE_LAUNCH = {"TORCHELASTIC_RUN_ID": "job-1", "MASTER_ADDR": "10.77.1.1", "MASTER_PORT": "29511"}


def test_a_second_process_at_a_rank_is_said_and_its_death_is_nobody_elses(collector: CollectorProcess) -> None:
    job = Job(collector.home, collector.url, env=_ONE_LAUNCH)
    with job.ranks(2, "finish", "0", "0.01") as ranks:
        for rank in ranks:
            rank.reach(10)
        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both ranks are known")
        second = job.start(0, 2, "finish", "0", "0.01")
        try:
            second.reach(10)
            text = f"rank 0 is claimed by 2 processes at once: pid {ranks[0].process.pid} on "
            (event,) = wait_until(
                lambda: collector.get(f"/api/runs/{RUN}/events?kind=rank-claimed-twice")["events"],
                "it is said",
                timeout_s=_WITHIN_S,
            )
            assert event["body"]["text"].startswith(text)
        finally:
            second.kill()

        def rival() -> str:
            (one,) = collector.ranks(RUN)[0]["rivals"]
            assert one["pid"] == second.process.pid
            return str(one["state"])

        wait_until(lambda: rival() == "dead", "the second one's death is known", timeout_s=_WITHIN_S)
        found = collector.ranks(RUN)
        assert [(found[n]["pid"], found[n]["state"]) for n in (0, 1)] == [
            (rank.process.pid, "running") for rank in ranks
        ]
        why = collector.get(f"/api/runs/{RUN}/why")
        assert (why["outcome"], why["roll_call"]["text"]) == ("running", "all 2 present")
        shown = subprocess.run(
            [sys.executable, "-c", _CLI, "ranks", RUN, "--http", collector.http],
            env=clean_environment(collector.home),
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=True,
        )
        assert text in shown.stdout
        # Had the second one's end been told, this would be one of two, or held back.
        ranks[1].kill()
        (alert,) = wait_until(
            lambda: collector.get(f"/api/runs/{RUN}/events?kind=alerted")["events"], "a rank's end is told"
        )
        assert ": rank 1 on " in alert["body"]["title"]
        assert "other" not in alert["body"]["title"]
        ranks[0].stop()
        collector.await_drained()
        for place, logged in ((0, ranks[0].returned), (1, ranks[1].returned)):
            (curve,) = collector.get(f"/api/runs/{RUN}/metrics?key=i&ranks={place}&buckets=0")["series"]
            assert curve["step"] == list(range(logged))
        kept = collector.ranks(RUN)[0]["rivals"][0]["last_step"]
        assert kept >= second.returned - 1


def test_a_program_that_starts_its_ranks_and_a_command_that_is_wrapped_are_not_accused(
    collector: CollectorProcess,
) -> None:
    spawned = Job(collector.home, collector.url, program="starting")
    wrapper = (sys.executable, "-m", "allranks.run_command", "--")
    wrapped = Job(collector.home, collector.url, "wrapped", wrapper=wrapper)
    with spawned.ranks(1) as programs, wrapped.ranks(1, "finish", "0", "0.05") as commands:

        def came(run: str) -> list[dict[str, Any]]:
            return list(collector.get(f"/api/runs/{run}/events?kind=opened")["events"])

        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both ranks are known", timeout_s=_WITHIN_S)
        wait_until(lambda: len(came(RUN)) == 3, "and who started them", timeout_s=_WITHIN_S)
        wait_until(lambda: len(came("wrapped")) == 2, "the command and its wrapper are known", timeout_s=_WITHIN_S)
        begun = time.time()

        def are_heard() -> bool:
            seen = [*collector.ranks(RUN).values(), *collector.ranks("wrapped").values()]
            return all((rank["last_seen"] or 0.0) > begun + SAME_S + 1.0 for rank in seen)

        wait_until(are_heard, "all are heard for longer than a newcomer may need", timeout_s=_WITHIN_S)
        for run in (RUN, "wrapped"):
            assert collector.get(f"/api/runs/{run}/ranks")["claims"] == []
        for program in (*programs, *commands):
            program.progress.ask_to_stop()
        assert [program.wait() for program in (*programs, *commands)] == [0, 0]


def test_a_world_that_shrinks_after_a_loss_is_said_and_whole_and_who_disagreed_with_it_is_named(
    collector: CollectorProcess,
) -> None:
    first = Job(collector.home, collector.url, env=_ONE_LAUNCH)
    second = Job(collector.home, collector.url, env={**_ONE_LAUNCH, "TORCHELASTIC_RESTART_COUNT": "1"})

    def why(attempt: int) -> dict[str, Any]:
        found: dict[str, Any] = collector.get(f"/api/runs/{RUN}/why?attempt={attempt}")
        return found

    def states() -> list[str]:
        return [row["state"] for _, row in sorted(collector.ranks(RUN).items())]

    with contextlib.ExitStack() as stack:
        # The last one was started with another number.
        ranks = [first.start(rank, world, "finish", "0", "0.01") for rank, world in ((0, 3), (1, 3), (2, 4))]
        for rank in ranks:
            stack.callback(rank.kill)
            rank.reach(50, timeout_s=_WITHIN_S)
        wait_until(lambda: states()[:3] == ["running"] * 3, "all are known", timeout_s=_WITHIN_S)
        ranks[2].kill()
        for rank in ranks[:2]:
            rank.process.send_signal(signal.SIGTERM)
            rank.wait()
        again = [second.start(rank, 2, "finish", "0", "0.01") for rank in range(2)]
        for rank in again:
            stack.callback(rank.kill)
            rank.reach(50, timeout_s=_WITHIN_S)
        wait_until(lambda: states() == ["running"] * 2, "the next attempt is complete", timeout_s=_WITHIN_S)
        now, before = why(2), why(1)
        assert (now["outcome"], now["roll_call"]["text"]) == ("running", "all 2 present")
        assert now["roll_call"]["claims"] == ["attempt 2 has a world of 2, attempt 1 had one of 3 or 4"]
        (disagreement,) = before["roll_call"]["claims"]
        assert disagreement.startswith("ranks do not agree on the world's size: rank ")
        assert (before["first"]["rank"], before["first"]["kind"]) == (2, "killed")
        assert {fate["rank"] for fate in before["followers"]} == {0, 1}
        for rank in again:
            rank.stop()
        wait_until(
            lambda: collector.get(f"/api/runs/{RUN}")["state"] == "finished", "it has ended well", timeout_s=_WITHIN_S
        )
