"""The kernel kills a rank for want of memory: that is told, and not only that it was killed."""

from __future__ import annotations

from tests.support.collector import CollectorProcess
from tests.support.memory_groups import memory_group
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

_LIMIT_MIB = 128


def test_a_rank_that_the_kernel_kills_for_want_of_memory_is_told_so(collector: CollectorProcess) -> None:
    with memory_group(_LIMIT_MIB) as wrapper:
        job = Job(collector.home, collector.url, wrapper=wrapper)
        with job.ranks(1, "eat", "0", "0.01") as ranks:
            ranks[0].reach(50, timeout_s=60.0)
            wait_until(lambda: collector.ranks(RUN), "the rank is known", timeout_s=60.0)
            ranks[0].progress.ask_to_stop()
            row = wait_until(lambda: _dead(collector), "the rank is dead", timeout_s=60.0)
            assert (row["state"], row["signal"]) == ("dead", "SIGKILL")
            ranks[0].wait()
            collector.await_drained()
    found = collector.get(f"/api/runs/{RUN}/why")
    assert (found["outcome"], found["first"]["rank"], found["first"]["kind"]) == ("failed", 0, "oom")


def _dead(collector: CollectorProcess) -> dict[str, object] | None:
    row = collector.ranks(RUN)[0]
    return row if row["state"] in ("dead", "failed") else None
