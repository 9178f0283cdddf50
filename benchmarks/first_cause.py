"""Whether the rank that broke is the one that is named: random faults in trainings of eight ranks over several hosts.

The hosts are network namespaces with processes, names and clocks of their own; the collector is on one of them, and
sees no process of the others. A launcher on each host ends the ranks there when one of them has ended, or does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support.collector import CollectorProcess
from tests.support.networks import Host, Network

from benchmarks.fault_scenarios import BY_ITSELF, RANKS, Named, Scenario, named_by, scenarios
from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import ROOT, environment, temporary_home

SEED = 5
_SCENARIOS, _RIGHT = 30, 29
_NODES = 4
_AT_ONCE = 3
_START_S, _FALL_S = 180.0, 60.0
_LOOK_S = 0.1
# So long after its first word a launcher kills those that are still there.
_KILL_S = 5.0
# When all have fallen, or stand: what is known of that is asked for and comes in.
_SETTLE_S = 3.0
_PORT = 20_000


@dataclass(frozen=True)
class Outcome:
    """What one scenario came to."""

    scenario: Scenario
    hosts: Sequence[str]
    named: Named
    verdict: str
    lines: Sequence[str]

    @property
    def is_right(self) -> bool:
        return self.named.is_right(self.scenario, self.hosts)

    @property
    def is_wrong_host(self) -> bool:
        return self.named.is_wrong_host(self.scenario, self.hosts)


def measure(options: Options) -> Measured:
    """How many scenarios were told rightly, and in how many a host was blamed that had done nothing."""
    count = options.pick(_SCENARIOS, 6)
    chosen = scenarios(count, SEED)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        outcomes = list(pool.map(play, chosen, [home / str(each.number) for each in chosen]))
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    wrong_hosts = [outcome for outcome in outcomes if outcome.is_wrong_host]
    note = f"seed {SEED}" + "".join(f"; {each.scenario.number} {each.scenario.fault}" for each in wrong)
    figures = [
        Figure(
            f"first cause named rightly, of {count} random faults on {RANKS} ranks",
            count - len(wrong),
            "",
            at_least(_RIGHT if count == _SCENARIOS else count - 1),
            note=note,
        ),
        Figure(f"a wrong host named, of {count} random faults", len(wrong_hosts), "", at_most(0)),
    ]
    details = {"wrong": [asdict(each) for each in wrong], "scenarios": [asdict(each) for each in chosen]}
    return Measured(figures, {"seed": SEED, **details})


def play(scenario: Scenario, home: Path) -> Outcome:
    """Has a scenario happen, and asks why when all has fallen that will; nobody is named where none could break."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(_NODES))
        collector = stack.enter_context(CollectorProcess(home / "hub", network=network))
        job = stack.enter_context(contextlib.closing(_Job(scenario, network, collector)))
        job.start()
        try:
            _await_steps(job, scenario.at_step - 5)
        except _NotBegun as error:
            return Outcome(scenario, job.host_names, Named(None, None), str(error), job.last_words())
        _await_fall(job)
        time.sleep(_SETTLE_S)
        why = job.why()
    return Outcome(scenario, job.host_names, named_by(why), why["verdict"], why["lines"])


class _NotBegun(Exception):
    """The ranks have not come to the step in which one of them is to break."""


class _Job:
    """The ranks of a scenario, their launchers, and whoever breaks them from outside."""

    def __init__(self, scenario: Scenario, network: Network, collector: CollectorProcess) -> None:
        self.scenario = scenario
        self.collector = collector
        self.run = f"fault-{scenario.number}"
        self._network = network
        self._hosts: list[Host] = [[network.hub, *network.nodes][host] for host in scenario.hosts]
        self.host_names = [host.name for host in self._hosts]
        self._processes: list[subprocess.Popen[bytes]] = []
        # By host: when a launcher has seen a rank of its own end.
        self._seen_end: dict[str, float] = {}
        self._has_broken = False

    def start(self) -> None:
        """Starts all ranks."""
        for rank, host in enumerate(self._hosts):
            self._processes.append(self._start(rank, host))

    def states(self) -> dict[int, dict[str, Any]]:
        """What the collector says of each rank; nothing where it was too busy to say."""
        with contextlib.suppress(OSError):
            return self.collector.ranks(self.run)
        return {}

    def why(self) -> dict[str, Any]:
        """What the collector says of it all."""
        deadline = time.monotonic() + _FALL_S
        while True:
            try:
                found: dict[str, Any] = self.collector.get(f"/api/runs/{self.run}/why", timeout_s=60.0)
            except OSError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_S)
            else:
                return found

    def last_words(self) -> list[str]:
        """How each rank's process stands, and what it printed last."""
        logs = [self._home(host) / f"{rank}.log" for rank, host in enumerate(self._hosts)]
        return [
            f"rank {rank}: {process.poll()}: {log.read_text(errors='replace')[-500:]}"
            for rank, (process, log) in enumerate(zip(self._processes, logs, strict=True))
        ]

    def tend(self) -> None:
        """Does what is due: the fault from outside, and what the launchers do when a rank has ended."""
        scenario, now = self.scenario, time.monotonic()
        if scenario.fault not in BY_ITSELF and not self._has_broken:
            row = self.states().get(scenario.victim)
            if row is not None and (row["last_step"] or 0) >= scenario.at_step:
                self._has_broken = True
                self._break()
        if scenario.launcher_s is None:
            return
        for process, host in zip(self._processes, self._hosts, strict=True):
            if process.poll() is not None:
                self._seen_end.setdefault(host.name, now)
        for process, host in zip(self._processes, self._hosts, strict=True):
            since_s = now - self._seen_end.get(host.name, now)
            if since_s >= scenario.launcher_s and process.poll() is None:
                _signal(process, host, self._network, signal.SIGTERM)
            if since_s >= scenario.launcher_s + _KILL_S and process.poll() is None:
                _signal(process, host, self._network, signal.SIGKILL)

    def close(self) -> None:
        """Ends what is left."""
        for process, host in zip(self._processes, self._hosts, strict=True):
            _signal(process, host, self._network, signal.SIGKILL)
            process.kill()
            process.wait()

    def _home(self, host: Host) -> Path:
        return self.collector.home.parent / host.name

    def _break(self) -> None:
        host = self._hosts[self.scenario.victim]
        if self.scenario.fault == "lost-node":
            self._network.lose(host)
        elif self.scenario.fault == "cut-link":
            self._network.cut(host)
        else:
            _signal(self._processes[self.scenario.victim], host, self._network, signal.SIGKILL)

    def _start(self, rank: int, host: Host) -> subprocess.Popen[bytes]:
        scenario = self.scenario
        home = self._home(host)
        home.mkdir(parents=True, exist_ok=True)
        is_victim = rank == scenario.victim and scenario.fault in BY_ITSELF
        told = {
            "run": self.run,
            "address": self._hosts[0].address,
            "port": _PORT,
            "step_s": scenario.step_s,
            "words": scenario.words,
            "logs_first": scenario.logs_first,
            "clock_s": scenario.clocks_s[scenario.hosts[rank]],
            "fault": scenario.fault,
            "break_at": scenario.at_step if is_victim else -1,
        }
        env = {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": self._hosts[0].address}
        env |= {"MASTER_PORT": "29500", "ALLRANKS_URL": self.collector.url}
        with open(home / f"{rank}.log", "wb") as log:
            return subprocess.Popen(
                [*host.wrapper, sys.executable, "-m", "benchmarks.workers.falling_rank", json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment(home, **env),
                start_new_session=True,
            )


def _signal(process: subprocess.Popen[bytes], host: Host, network: Network, number: signal.Signals) -> None:
    """Sends a signal to a rank: at a node it is the child of what has entered there."""
    with contextlib.suppress(OSError, ValueError):
        if host is network.hub:
            process.send_signal(number)
        else:
            os.kill(int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()), number)


def _await_steps(job: _Job, step: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        rows = job.states()
        steps = [row["last_step"] for row in rows.values()]
        if len(steps) == RANKS and all(at is not None and at >= step for at in steps):
            return
        if time.monotonic() >= deadline:
            told = {rank: (row["state"], row["last_step"], row["reason"]) for rank, row in rows.items()}
            raise _NotBegun(f"not all have come to step {step}: {told}")
        time.sleep(_LOOK_S)


def _await_fall(job: _Job) -> None:
    """Returns when no rank is running any more; in vain where a rank waits that nobody tells of the others' end."""
    deadline = time.monotonic() + _FALL_S
    while time.monotonic() < deadline:
        job.tend()
        states = [row["state"] for row in job.states().values()]
        if states and "running" not in states:
            return
        time.sleep(_LOOK_S)
