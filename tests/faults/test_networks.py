"""Hosts that are cut off and hosts that are lost: told from death, and from what fails by itself meanwhile."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from tests.support.collector import CollectorProcess
from tests.support.networks import Host, Network
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

UNREACHABLE_WITHIN_S = 6.0
# In the place of a node: beside the collector, which sees the processes there.
HUB = -1
_START_S = 60.0


@contextlib.contextmanager
def _training(
    home: Path, nodes: Sequence[int], endings: Sequence[str], settings: Mapping[str, str] | None = None
) -> Generator[tuple[Network, CollectorProcess, list[Rank]]]:
    """Ranks that are all heard, of which each runs on the node of its number and ends in its own way once asked."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(max(nodes) + 1))
        collector = stack.enter_context(CollectorProcess(home, settings, network=network))
        ranks: list[Rank] = []
        for rank, (node, ending) in enumerate(zip(nodes, endings, strict=True)):
            host = network.hub if node == HUB else network.nodes[node]
            # The ranks find each other as those of a launch over several hosts do; and what one keeps on its own
            # disk nobody else can bring in.
            env = {"MASTER_ADDR": network.nodes[0].address, "MASTER_PORT": "29500"}
            of_host = home if node == HUB else home.parent / host.name / "home"
            job = Job(of_host, collector.url, env=env, wrapper=host.wrapper)
            ranks.append(job.start(rank, len(nodes), ending, "0", "0.01"))
            stack.callback(_end, ranks[-1])
        wait_until(lambda: _states(collector) == ["running"] * len(nodes), "all are heard", timeout_s=_START_S)
        for rank_ in ranks:
            rank_.reach(rank_.returned + 100)
        yield network, collector, ranks


def _end(rank: Rank) -> None:
    """Kills what runs on its node in the name of a rank; the rank itself ends with the node."""
    if rank.process.poll() is None:
        rank.kill()


def _states(collector: CollectorProcess) -> list[str]:
    return [row["state"] for _, row in sorted(collector.ranks(RUN).items())]


def _alerts(collector: CollectorProcess) -> list[str]:
    """The rules of the alerts so far, by name; each must name the rank that it is about."""
    about = {"unreachable": "rank 1 on node-2 ", "recovered": "rank 1 on node-2 ", "failed": "rank 2 on node-1 "}
    told = [event["body"] for event in collector.get(f"/api/runs/{RUN}/events?kind=alerted")["events"]]
    assert all(about[body["rule"]] in body["title"] for body in told), told
    return sorted(body["rule"] for body in told)


def _cut(
    network: Network, collector: CollectorProcess, cut: Callable[[Host], None], node: int, reached: Callable[[], bool]
) -> None:
    """Does it to a node; `reached` must be true in time, by what the collector says of when it was."""
    begun = time.time()
    cut(network.nodes[node])
    wait_until(reached, "its ranks are unreachable", timeout_s=60.0)
    told = [event for event in collector.get(f"/api/runs/{RUN}/events?kind=state")["events"] if event["time"] > begun]
    assert {event["body"]["state"] for event in told} == {"unreachable"}
    assert max(event["time"] for event in told) - begun <= UNREACHABLE_WITHIN_S


def test_who_is_cut_off_is_unreachable_blamed_for_nothing_and_comes_back_with_all_that_it_logged(home: Path) -> None:
    with _training(home, [0, 1, 0], ["finish", "finish", "raise"]) as (network, collector, ranks):
        _cut(network, collector, network.cut, 1, lambda: _states(collector) == ["running", "unreachable", "running"])
        wait_until(lambda: _alerts(collector) == ["unreachable"], "it is an alert", timeout_s=60.0)
        ranks[2].progress.ask_to_stop()
        assert ranks[2].wait() == 1
        wait_until(lambda: _states(collector)[2] == "failed", "it has failed", timeout_s=60.0)
        found = collector.get(f"/api/runs/{RUN}/why")
        assert (found["outcome"], found["first"]["rank"], found["first"]["host"]) == ("failed", 2, "node-1")
        ranks[1].reach(ranks[1].returned + 100)  # it trains on, wherever it is
        network.heal(network.nodes[1])
        wait_until(lambda: _states(collector)[1] == "running", "it is back", timeout_s=60.0)
        told = ["failed", "recovered", "unreachable"]
        wait_until(lambda: _alerts(collector) == told, "what became of whom is told once each", timeout_s=60.0)
        ranks[0].stop()
        ranks[1].stop()
        wait_until(lambda: _states(collector)[:2] == ["finished", "finished"], "they have finished", timeout_s=60.0)
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)
        with stored_in(collector.database) as stored:
            assert stored.states(RUN, 1) == ["running", "unreachable", "running", "finished"]
            assert stored.states(RUN, 0) == ["running", "finished"]


def test_all_ranks_of_a_lost_node_are_unreachable_and_then_dead_and_it_is_named(home: Path) -> None:
    settings = {"ALLRANKS_DEAD_AFTER_S": "7"}
    with _training(home, [0, 1, 1], ["finish", "finish", "finish"], settings) as (network, collector, ranks):
        _cut(
            network,
            collector,
            network.lose,
            1,
            lambda: _states(collector) == ["running", "unreachable", "unreachable"],
        )
        found = collector.get(f"/api/runs/{RUN}/why")
        assert (found["outcome"], found["first"]["host"], found["first"]["lost"]) == ("unreachable", "node-2", [1, 2])
        wait_until(lambda: _states(collector) == ["running", "dead", "dead"], "they are given up", timeout_s=60.0)
        found = collector.get(f"/api/runs/{RUN}/why")
        assert (found["first"]["host"], found["first"]["kind"]) == ("node-2", "silent")
        assert found["verdict"].startswith("ranks 1-2 on node-2: ")
        assert {row["reason"].rpartition(" s")[2] for row in list(collector.ranks(RUN).values())[1:]} == {
            ": given up"
        }
        ranks[0].stop()
        wait_until(lambda: collector.get(f"/api/runs/{RUN}")["state"] == "dead", "the run has ended")


def test_a_collector_that_was_away_accuses_nobody_but_who_died_meanwhile(home: Path) -> None:
    settings = {"ALLRANKS_HEARTBEAT_TIMEOUT_S": "3"}
    with _training(home, [HUB, 0, HUB], ["finish", "finish", "hang"], settings) as (_, collector, ranks):
        collector.kill()
        ranks[2].process.send_signal(signal.SIGKILL)
        for rank in ranks[:2]:
            rank.reach(rank.returned + 100)
        collector.start()
        wait_until(lambda: _states(collector)[2] == "dead", "the dead one is told", timeout_s=60.0)
        enough = time.monotonic() + 4.0
        wait_until(lambda: time.monotonic() > enough, "the others have had time to be missed")
        assert _states(collector) == ["running", "running", "dead"]
        first = collector.get(f"/api/runs/{RUN}/why")["first"]
        assert (first["rank"], first["cause"]) == (2, "killed by SIGKILL")
        for rank in ranks[:2]:
            rank.stop()
        wait_until(lambda: _states(collector)[:2] == ["finished", "finished"], "they have finished", timeout_s=60.0)
        collector.stop()
        with stored_in(collector.database) as stored:
            assert [stored.states(RUN, rank) for rank in (0, 1)] == [["running", "finished"]] * 2
