"""The training loop of one rank: a data-parallel step, and what is logged of it."""

from __future__ import annotations

import os
import signal
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from allranks import Histogram
from allranks.demo import data
from allranks.demo.model import Mlp, Momentum, learning_rate
from allranks.demo.options import DEFAULT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from allranks.demo.allreduce import Group
    from allranks.demo.options import Options, Place

HIDDEN = (256, 128)
CLASSES = 10
HISTOGRAM_EVERY_STEPS = 50
TROUBLE_AT = 1 / 3  # of the way: where --kill-rank and --stall-rank strike
_PRINT_EVERY_S = 1.0


class Log(Protocol):
    """What the loop asks of a run."""

    def log(self, data: Mapping[str, object], step: int | None = None) -> None: ...


@dataclass(frozen=True)
class Limit:
    """Where the training ends: after steps, or after seconds."""

    steps: int | None
    seconds: float

    @classmethod
    def of(cls, options: Options, steps_per_epoch: int) -> Limit:
        """Where the command line has it end; after DEFAULT_SECONDS where that says nothing."""
        if options.epochs is not None:
            return cls(max(1, round(options.epochs * steps_per_epoch)), 0.0)
        if options.steps is not None:
            return cls(options.steps, 0.0)
        return cls(None, options.seconds or DEFAULT_SECONDS)

    def progress(self, step: int, elapsed_s: float) -> float:
        """0 at the begin, 1 and more at the end."""
        return elapsed_s / self.seconds if self.steps is None else step / self.steps


@dataclass(frozen=True)
class Outcome:
    """How it ended, the same on all ranks."""

    steps: int
    test_accuracy: float
    checksum: int


def stand_still() -> None:
    """Never come back, while the launcher lives: alive, with threads that go on, and without a step."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)


def kill_self() -> None:
    """End as the kernel's out-of-memory killer would end this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def train(
    options: Options,
    place: Place,
    group: Group,
    run: Log,
    *,
    say: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Train this rank's replica to the end.

    The ranks agree on everything that steers them, because it comes out of the same mean: the gradient, and
    the time that has passed, which sets the learning rate and the end.

    Raises:
        PeerError: another rank is gone or stuck, or the replicas have drifted apart.
    """
    samples, held_out = data.load()
    size = data.batch_size(len(samples), place.world_size, options.batch)
    limit = Limit.of(options, data.steps_per_epoch(len(samples), place.world_size, size))
    mine = data.shard(samples, place.rank, place.world_size)
    test = data.shard(held_out, place.rank, place.world_size)
    batches = data.batches(mine, size, np.random.default_rng([options.seed, place.rank]))
    model = Mlp((samples.x.shape[1], *HIDDEN, CLASSES), options.seed)
    optimizer = Momentum(model.weights, options.momentum)

    began = before = clock()
    said, step, progress = began, 0, 0.0
    while progress < 1.0:
        if progress >= TROUBLE_AT:
            _trouble(options, place.rank)
        batch = next(batches)
        result = model.learn(batch.x, batch.labels)
        averaged = group.mean(np.append(result.gradient, clock() - began))
        lr = learning_rate(options.lr, progress)
        optimizer.step(averaged[:-1], lr)

        now = clock()
        values: dict[str, object] = {
            "train/loss": result.loss,
            "train/accuracy": result.accuracy,
            "test/accuracy": model.accuracy(test.x, test.labels),
            "lr": lr,
            "grad_norm": float(np.linalg.norm(result.gradient)),
            "samples_per_s": size / max(now - before, 1e-9),
        }
        if step % HISTOGRAM_EVERY_STEPS == 0:
            for number, (matrix, _) in enumerate(model.layers(model.weights)):
                values[f"weights/layer{number}"] = Histogram(matrix)
        run.log(values, step=step)
        if place.rank == 0 and now - said >= _PRINT_EVERY_S:
            say(f"step {step:5d}  loss {result.loss:.3f}  test accuracy {values['test/accuracy']:.3f}")
            said = now
        before = now
        step += 1
        progress = limit.progress(step, float(averaged[-1]))
    return Outcome(step, model.accuracy(held_out.x, held_out.labels), agree(model, group))


def agree(model: Mlp, group: Group) -> int:
    """The checksum of the weights, after all ranks have found it to be the same.

    Raises:
        PeerError: the replicas differ, which data-parallel training must never do.
    """
    from allranks.demo.allreduce import PeerError

    checksum = zlib.crc32(model.weights.tobytes())
    # Exact in a double: 32 bits, and the squares would not be. Two moments, so that no mean hides a difference.
    parts = np.array([checksum & 0xFFFF, checksum >> 16], dtype=np.float64)
    moments = group.mean(np.concatenate([parts, parts * parts]))
    if not np.array_equal(moments, np.concatenate([parts, parts * parts])):
        raise PeerError("the ranks' weights have drifted apart")
    return checksum


def _trouble(options: Options, rank: int) -> None:
    if options.kill_rank == rank:
        kill_self()
    if options.stall_rank == rank:
        stand_still()
