"""From a pulled cable, and from the loss of a node, until somebody who watches is told so of each of its ranks.

The hosts are network namespaces with processes of their own: the collector is on one, eight ranks of a run are on
another, and one rank is on a third, of which nothing else than `running` may be said.
"""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass, field

from tests.support.collector import CollectorProcess
from tests.support.networks import Host, Network

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, temporary_home
from benchmarks.rank_states import Observer, await_steps, observing
from benchmarks.samples import spread

_RUN = "lost-nodes"
_RANKS = 8
_STEP_S = 0.1
_UNREACHABLE_S = 6.0
# What the collector is told; and by how much later it may be seen: half a second to look, and as much to tell.
_DEAD_AFTER_S, _LATER_S = 15.0, 1.0
# A rank was last heard up to this long before.
_EARLIER_S = 1.5
_DEADLINE_S = 90.0
# Not in step with beats.
_PAUSE_S = (2.0, 3.5)


@dataclass
class _Delays:
    """Seconds, of each rank and each time."""

    cut: list[float] = field(default_factory=list[float])
    back: list[float] = field(default_factory=list[float])
    lost: list[float] = field(default_factory=list[float])
    dead: list[float] = field(default_factory=list[float])


def measure(options: Options) -> Measured:
    """The delays of all ranks over some cuts of one node's cable; and of the loss of that node at last."""
    delays, others = _Delays(), 0
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        network = stack.enter_context(Network(2))
        settings = {"ALLRANKS_DEAD_AFTER_S": str(_DEAD_AFTER_S)}
        collector = stack.enter_context(CollectorProcess(home / "hub", settings, network=network))
        observer = stack.enter_context(observing(collector.http, _RUN))
        node = network.nodes[0]
        ranks = [_start(stack, collector, network, rank) for rank in range(_RANKS + 1)]
        for rank in ranks:
            rank.hear(_DEADLINE_S)
        await_steps(observer, range(_RANKS + 1), 20, time.monotonic() + _DEADLINE_S)
        pause = random.Random(0)
        for _ in range(options.pick(4, 1)):
            _cut(network, node, observer, delays, pause)
        _lose(network, node, observer, delays)
        others += observer.rows()[_RANKS]["state"] != "running"
        ranks[-1].say("end")
        ranks[-1].hear(_DEADLINE_S)
    cut, back, lost, dead = (spread(each) for each in (delays.cut, delays.back, delays.lost, delays.dead))
    whole = spread([*delays.cut, *delays.lost])
    figures = [
        Figure(
            "from a lost node or a cut link to `unreachable`, p99",
            whole.p99,
            "s",
            at_most(_UNREACHABLE_S),
            note=f"median {whole.median:.1f} s of {cut.count} by cuts and {lost.count} by a loss",
        ),
        Figure(
            f"from a lost node to `dead`, where that is to take {_DEAD_AFTER_S:g} s: the latest",
            dead.max,
            "s",
            at_most(_DEAD_AFTER_S + _LATER_S),
            note=f"{dead.count} ranks",
        ),
        Figure(
            f"from a lost node to `dead`, where that is to take {_DEAD_AFTER_S:g} s: the earliest",
            min(delays.dead),
            "s",
            at_least(_DEAD_AFTER_S - _EARLIER_S),
        ),
        Figure(
            "from a link that is whole again to `running`, median", back.median, "s", note=f"{back.max:.1f} at most"
        ),
        Figure("ranks of other nodes that were blamed", others, "", at_most(0)),
    ]
    return Measured(figures, {name: list(map(float, values)) for name, values in vars(delays).items()})


def _start(stack: contextlib.ExitStack, collector: CollectorProcess, network: Network, rank: int) -> Worker:
    host = network.nodes[rank // _RANKS]
    # What a node keeps on its own disk nobody else can bring in.
    home = collector.home.parent / host.name
    home.mkdir(exist_ok=True)
    # As the ranks of a launch over several hosts find each other.
    env = {"MASTER_ADDR": network.nodes[0].address, "MASTER_PORT": "29500"}
    env |= {"ALLRANKS_URL": collector.url, "RANK": str(rank), "WORLD_SIZE": str(_RANKS + 1)}
    told = {"run": _RUN, "step_s": _STEP_S}
    return stack.enter_context(Worker("stepping_rank", told, home=home, wrapper=host.wrapper, **env))


def _cut(network: Network, node: Host, observer: Observer, delays: _Delays, pause: random.Random) -> None:
    time.sleep(pause.uniform(*_PAUSE_S))
    begun = time.monotonic()
    network.cut(node)
    delays.cut += _seen(observer, "unreachable", begun)
    begun = time.monotonic()
    network.heal(node)
    delays.back += _seen(observer, "running", begun)


def _lose(network: Network, node: Host, observer: Observer, delays: _Delays) -> None:
    begun = time.monotonic()
    network.lose(node)
    delays.lost += _seen(observer, "unreachable", begun)
    delays.dead += _seen(observer, "dead", begun)


def _seen(observer: Observer, state: str, begun: float) -> list[float]:
    seen = observer.see(range(_RANKS), [state], begun + _DEADLINE_S)
    return [at - begun for at in seen.values()]
