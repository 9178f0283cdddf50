"""The digits, split into a held-out part and one shard per rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Labels = NDArray[np.int64]

SIDE = 8  # a digit is 8 × 8 pixels, 0 to 16
HELD_OUT = 0.2
_SPLIT_SEED = 17  # the split is part of the task, not of a run: all seeds are tested on the same digits


@dataclass(frozen=True)
class Samples:
    """Images as rows of 64 pixels in 0 to 1, and the digits they show."""

    x: Vector
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Samples:
        """Those of these numbers, in this order."""
        return Samples(self.x[index], self.labels[index])


def load() -> tuple[Samples, Samples]:
    """Scikit-learn's digits, as (train, held-out), the same on every rank."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    samples = Samples(np.asarray(digits.data, dtype=np.float64) / 16.0, np.asarray(digits.target, dtype=np.int64))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(samples))
    cut = int(len(samples) * HELD_OUT)
    return samples.take(order[cut:]), samples.take(order[:cut])


def shard(samples: Samples, rank: int, world_size: int) -> Samples:
    """This rank's part: each sample is on one rank, and no rank has two more than another.

    Raises:
        ValueError: there are more ranks than samples.
    """
    if world_size > len(samples):
        raise ValueError(f"{len(samples)} samples cannot be shared by {world_size} ranks: take fewer ranks")
    return samples.take(np.arange(rank, len(samples), world_size, dtype=np.int64))


def batch_size(samples: int, world_size: int, wanted: int) -> int:
    """Samples per step on every rank: what is wanted, or all that the smallest shard has."""
    return min(wanted, samples // world_size)


def steps_per_epoch(samples: int, world_size: int, batch: int) -> int:
    """Full batches that every rank can take out of its shard."""
    return (samples // world_size) // batch


def batches(samples: Samples, size: int, rng: np.random.Generator) -> Iterator[Samples]:
    """Batches without end: each pass over the shard in a new order, each digit moved and blurred anew."""
    while True:
        order = rng.permutation(len(samples))
        for start in range(0, len(order) - size + 1, size):
            picked = samples.take(order[start : start + size])
            yield Samples(augment(picked.x, rng), picked.labels)


def augment(x: Vector, rng: np.random.Generator) -> Vector:
    """Each image moved by up to one pixel either way, with some noise: the training never runs dry."""
    padded = np.pad(x.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    down, right = rng.integers(0, 3, (2, len(x)))
    rows = (down[:, None] + np.arange(SIDE))[:, :, None]
    columns = (right[:, None] + np.arange(SIDE))[:, None, :]
    moved: Vector = padded[np.arange(len(x))[:, None, None], rows, columns].reshape(len(x), -1)
    moved += rng.normal(0.0, 0.1, moved.shape)
    return moved
