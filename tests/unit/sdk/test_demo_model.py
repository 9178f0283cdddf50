"""The demo's model: its gradient is the loss's, and its learning rate has the shape that it says."""

from __future__ import annotations

import numpy as np
import pytest

from allranks.demo.model import Mlp, Momentum, learning_rate


def problem() -> tuple[Mlp, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return Mlp((6, 7, 5, 4), seed=1), rng.normal(size=(9, 6)), rng.integers(0, 4, 9)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    model, x, labels = problem()
    gradient = model.learn(x, labels).gradient
    slopes = np.empty_like(gradient)
    for index, weight in enumerate(model.weights.copy()):
        losses = []
        for moved in (weight + 1e-6, weight - 1e-6):
            model.weights[index] = moved
            losses.append(model.learn(x, labels).loss)
        model.weights[index] = weight
        slopes[index] = (losses[0] - losses[1]) / 2e-6
    np.testing.assert_allclose(gradient, slopes, atol=1e-7)
    assert np.count_nonzero(gradient) > len(gradient) / 2


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, second, other = Mlp((4, 3), 5), Mlp((4, 3), 5), Mlp((4, 3), 6)
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.weights.tobytes() != other.weights.tobytes()


def test_an_untrained_model_has_the_loss_of_a_guess() -> None:
    model, x, labels = problem()
    model.weights[:] = 0.0
    assert model.learn(x, labels).loss == pytest.approx(np.log(4))


def test_large_logits_do_not_overflow() -> None:
    model, x, labels = problem()
    assert np.isfinite(model.learn(x * 1e6, labels).loss)


def test_momentum_goes_on_in_the_direction_it_has() -> None:
    weights = np.zeros(2)
    optimizer = Momentum(weights, 0.5)
    optimizer.step(np.array([1.0, 0.0]), lr=0.1)
    optimizer.step(np.array([0.0, 1.0]), lr=0.1)
    np.testing.assert_allclose(weights, [-0.15, -0.1])


def test_training_learns() -> None:
    model, x, labels = problem()
    optimizer = Momentum(model.weights, 0.9)
    for _ in range(200):
        optimizer.step(model.learn(x, labels).gradient, 0.1)
    assert model.accuracy(x, labels) == 1.0


@pytest.mark.parametrize(("progress", "rate"), [(0.0, 0.1), (0.05, 1.0), (0.525, 0.5), (1.0, 0.0), (1.7, 0.0)])
def test_learning_rate_warms_up_and_cools_down(progress: float, rate: float) -> None:
    assert learning_rate(1.0, progress) == pytest.approx(rate)
