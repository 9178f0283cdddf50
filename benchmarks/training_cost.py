"""What the SDK costs a training loop of 10 ms steps that logs ten keys each step, with the collector beside it.

Measured as the difference of whole blocks, with and without a run, in turns; and, because that difference is smaller
than most machines' noise, also added up from its parts: the calls, the publisher thread's CPU time, the looks at the
system.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_most
from benchmarks.processes import run_worker, running_collector, temporary_home
from benchmarks.samples import median_noise

STEP_S = 0.010
KEYS = 10
_STEPS_PER_BLOCK = 50


def measure(options: Options) -> Measured:
    """The cost in percent of the loop's time: wall clock, CPU, and from its parts; over several processes."""
    told = {"step_s": STEP_S, "keys": KEYS, "steps": _STEPS_PER_BLOCK, "rounds": options.pick(10, 2)}
    answers: list[dict[str, Any]] = []
    with temporary_home() as home, running_collector(home):
        for _ in range(options.pick(4, 1)):
            answers.append(run_worker("training_cost", told, home=home, timeout_s=60 + 10 * told["rounds"]))
    taken = {"processes": answers}
    pairs = [pair for answer in answers for pair in answer["rounds"]]
    wall, cpu = (
        [100 * (pair["with"][name] / pair["without"][name] - 1) for pair in pairs] for name in ("wall_s", "cpu_s")
    )
    loop_s = median(pair["without"]["wall_s"] for pair in pairs)
    calls = 100 * median(pair["with"]["log_s"] - pair["without"]["log_s"] for pair in pairs) / loop_s
    publisher = 100 * median(pair["with"]["publisher_s"] for pair in pairs) / loop_s
    looks = 100 * median(answer["sample_share"] for answer in answers)
    what = f"cost to steps of {1e3 * loop_s / answers[0]['steps']:.1f} ms that log {KEYS} keys"
    figures = [
        Figure(f"{what}, wall clock", median(wall), "%", at_most(0.5), noise=median_noise(wall)),
        Figure(f"{what}, CPU time", median(cpu), "%", noise=median_noise(cpu)),
        Figure(
            f"{what}, sum of its parts",
            calls + publisher + looks,
            "%",
            at_most(0.5),
            note=f"calls {calls:.3f}, publisher {publisher:.3f}, looks at the system {looks:.3f}",
        ),
    ]
    return Measured(figures, taken)
