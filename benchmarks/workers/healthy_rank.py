"""A healthy rank: its steps take now this and now that, it evaluates, and it is long at its checkpoints.

In a job that is `together` each step ends for all ranks at once, over sockets; there only rank 0 saves, and the
others wait for it without a word.
"""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np

import allranks
from allranks.demo.allreduce import Group, join
from benchmarks.workers.lines import answer, arguments, await_word

_PEERS_S = 900.0
# Steps are log-normal around their median; the longest are cut, for a pause without a word is no healthy step.
_SIGMA, _LONGEST_STEP_S = 0.7, 4.0
_FIRST_STEP_S = (1.0, 12.0)
_DATA_SHARE = 0.3
_EVALUATE_EVERY, _EVALUATION_S = 150, (2.0, 8.0)
# What a program announces is a guess.
_ANNOUNCED = 1.2


class Rank:
    """One rank on its way."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self.run = allranks.init(project="bench", id=told["run"])
        self._draw = random.Random(f"{told['run']} {self.run.rank}")
        self._group: Group | None = None

    def meet(self) -> None:
        """Returns when all of the job are there, if they train together."""
        told, run = self._told, self.run
        if told["is_together"]:
            self._group = join(run.rank, run.world_size, "127.0.0.1", told["port"], _PEERS_S)

    def train(self, begun: float, until: float) -> int:
        """Steps from `begun` to `until` (monotonic): how many there were."""
        saves = [begun + at for at in self._told["saves_at"]]
        time.sleep(self._draw.uniform(*_FIRST_STEP_S))
        step = 0
        while not self._is_over(until):
            if saves and time.monotonic() >= saves[0]:
                saves.pop(0)
                self._save()
            if step % _EVALUATE_EVERY == _EVALUATE_EVERY - 1:
                with self.run.section("evaluation"):
                    time.sleep(self._draw.uniform(*_EVALUATION_S))
            self._step()
            self.run.log({"loss": 1.0 / (step + 1), "noise": self._draw.random()}, step)
            step += 1
        if self._group is not None:
            self._group.close()
        return step

    def _step(self) -> None:
        seconds = min(_LONGEST_STEP_S, self._told["step_s"] * self._draw.lognormvariate(0.0, _SIGMA))
        with self.run.section("data"):
            time.sleep(_DATA_SHARE * seconds)
        time.sleep((1 - _DATA_SHARE) * seconds)

    def _save(self) -> None:
        if self._group is not None and self.run.rank:
            return
        save_s = self._told["save_s"]
        if self._told["is_announced"]:
            self.run.expect(_ANNOUNCED * save_s)
            time.sleep(save_s)
        else:
            with self.run.section("checkpoint"):
                time.sleep(save_s)

    def _is_over(self, until: float) -> bool:
        is_over = time.monotonic() >= until
        if self._group is None:
            return is_over
        # All of them, or none.
        return bool(self._group.mean(np.array([float(is_over and self.run.rank == 0)]))[0])


def main() -> None:
    told = arguments()
    rank = Rank(told)
    rank.meet()
    answer({"ready": True})
    begun, until = map(float, await_word().split())
    steps = rank.train(begun, until)
    rank.run.finish()
    answer({"steps": steps})


if __name__ == "__main__":
    main()
