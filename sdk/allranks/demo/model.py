"""A multi-layer perceptron in numpy: ReLU between the layers, softmax cross-entropy at the end.

All weights lie in one flat vector, so that the ranks average one vector, and the layers are views into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What one forward and backward pass gave."""

    loss: float
    accuracy: float
    gradient: Vector


class Mlp:
    """The model. `weights` is its flat vector; who changes it in place trains the model."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        """Make a model with layers of `sizes` units, He-initialised: equal seeds give equal weights."""
        self.sizes = tuple(sizes)
        self.weights: Vector = np.zeros(sum(a * b + b for a, b in pairwise(self.sizes)))
        rng = np.random.default_rng(seed)
        for matrix, _ in self.layers(self.weights):
            matrix[:] = rng.normal(0.0, math.sqrt(2.0 / matrix.shape[0]), matrix.shape)

    def layers(self, flat: Vector) -> list[tuple[Vector, Vector]]:
        """Views of (matrix, bias) for each layer into a vector of the model's length."""
        views: list[tuple[Vector, Vector]] = []
        start = 0
        for a, b in pairwise(self.sizes):
            middle, end = start + a * b, start + a * b + b
            views.append((flat[start:middle].reshape(a, b), flat[middle:end]))
            start = end
        return views

    def _forward(self, x: Vector) -> list[Vector]:
        """The input of every layer, and the logits last."""
        inputs = [x]
        layers = self.layers(self.weights)
        for number, (matrix, bias) in enumerate(layers, start=1):
            x = x @ matrix + bias
            if number < len(layers):
                x = np.maximum(x, 0.0)
            inputs.append(x)
        return inputs

    def accuracy(self, x: Vector, labels: Labels) -> float:
        """The share of `x` (samples × features) that the model gives its right label."""
        return float(np.mean(self._forward(x)[-1].argmax(axis=1) == labels))

    def learn(self, x: Vector, labels: Labels) -> Batch:
        """Mean loss and accuracy over a batch, and the loss's gradient by all weights."""
        *inputs, logits = self._forward(x)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rows = np.arange(len(labels))
        loss = -float(np.mean(log_p[rows, labels]))

        gradient = np.empty_like(self.weights)
        delta = np.exp(log_p)
        delta[rows, labels] -= 1.0
        delta /= len(labels)
        pairs = zip(inputs, self.layers(self.weights), self.layers(gradient), strict=True)
        for layer_input, (matrix, _), (matrix_gradient, bias_gradient) in reversed(list(pairs)):
            matrix_gradient[:] = layer_input.T @ delta
            bias_gradient[:] = delta.sum(axis=0)
            delta = (delta @ matrix.T) * (layer_input > 0)
        return Batch(loss, float(np.mean(logits.argmax(axis=1) == labels)), gradient)


class Momentum:
    """SGD with momentum, in place."""

    def __init__(self, weights: Vector, momentum: float) -> None:
        self._weights = weights
        self._momentum = momentum
        self._velocity = np.zeros_like(weights)

    def step(self, gradient: Vector, lr: float) -> None:
        """Move the weights by one step."""
        self._velocity *= self._momentum
        self._velocity += gradient
        self._weights -= lr * self._velocity


def learning_rate(highest: float, progress: float, warmup: float = 0.05) -> float:
    """Linear warm-up, then a cosine down to nothing; `progress` is 0 at the begin and 1 at the end."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return highest * (0.1 + 0.9 * progress / warmup)
    return highest * 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))
