"""The demo's loop: it ends where it should, logs every step, and goes to its trouble at a third."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.support.ports import free_port

from allranks.demo import loop
from allranks.demo.allreduce import PeerError, join
from allranks.demo.loop import Limit, agree, train
from allranks.demo.model import Mlp
from allranks.demo.options import Options, Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allranks.demo.allreduce import Vector


class Recorder:
    """A run that keeps what was logged."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, object]]] = []

    def log(self, data: Mapping[str, object], step: int | None = None) -> None:
        self.rows.append((step, dict(data)))


class Alone:
    """A group of one."""

    def mean(self, vector: Vector) -> Vector:
        return np.array(vector)

    def close(self) -> None:
        pass


ALONE = Place(0, 1, "127.0.0.1", 0)


def quiet(_line: str) -> None:
    pass


def test_every_step_is_logged_with_all_its_numbers() -> None:
    run = Recorder()
    outcome = train(Options(steps=3, batch=8), ALONE, Alone(), run, say=quiet)
    assert outcome.steps == 3
    assert [step for step, _ in run.rows] == [0, 1, 2]
    numbers = {"train/loss", "train/accuracy", "test/accuracy", "lr", "grad_norm", "samples_per_s"}
    assert run.rows[1][1].keys() == numbers
    assert run.rows[0][1].keys() == numbers | {"weights/layer0", "weights/layer1", "weights/layer2"}


def test_it_learns_the_digits() -> None:
    outcome = train(Options(epochs=25), ALONE, Alone(), Recorder(), say=quiet)
    assert outcome.test_accuracy >= 0.95


def test_a_time_limit_ends_it() -> None:
    ticks = count()
    outcome = train(Options(seconds=20.0), ALONE, Alone(), Recorder(), say=quiet, clock=lambda: float(next(ticks)))
    assert 5 <= outcome.steps <= 20


def test_ranks_learn_one_model_from_different_digits() -> None:
    port = free_port()
    runs = [Recorder() for _ in range(3)]

    def rank_main(rank: int) -> loop.Outcome:
        group = join(rank, 3, "127.0.0.1", port, 60.0)
        place = Place(rank, 3, "127.0.0.1", port)
        outcome = train(Options(steps=20, batch=16), place, group, runs[rank], say=quiet)
        group.close()
        return outcome

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(rank_main, range(3)))
    assert len({outcome.checksum for outcome in outcomes}) == 1
    assert len({run.rows[5][1]["train/loss"] for run in runs}) == 3


def test_replicas_that_drifted_apart_are_found() -> None:
    port = free_port()

    def rank_main(rank: int) -> object:
        group = join(rank, 2, "127.0.0.1", port, 60.0)
        try:
            return agree(Mlp((3, 2), seed=rank), group)
        finally:
            group.close()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(rank_main, rank) for rank in range(2)]:
            with pytest.raises(PeerError, match="drifted apart"):
                future.result()


@pytest.mark.parametrize(
    ("options", "step", "elapsed_s", "progress"),
    [
        (Options(steps=10), 5, 99.0, 0.5),
        (Options(epochs=2), 7, 99.0, 0.5),
        (Options(seconds=4), 999, 1.0, 0.25),
        (Options(), 999, 15.0, 1.0),
    ],
)
def test_the_limit(options: Options, step: int, elapsed_s: float, progress: float) -> None:
    assert Limit.of(options, steps_per_epoch=7).progress(step, elapsed_s) == pytest.approx(progress)


class Struck(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize(("option", "function"), [("kill_rank", "kill_self"), ("stall_rank", "stand_still")])
def test_trouble_strikes_its_rank_at_a_third(monkeypatch: pytest.MonkeyPatch, option: str, function: str) -> None:
    def strike() -> None:
        raise Struck

    monkeypatch.setattr(loop, function, strike)
    run = Recorder()
    with pytest.raises(Struck):
        train(Options(steps=9, batch=8, **{option: 0}), ALONE, Alone(), run, say=quiet)  # type: ignore[arg-type]
    assert len(run.rows) == 3


def test_trouble_of_another_rank_is_not_mine() -> None:
    outcome = train(Options(steps=9, batch=8, kill_rank=1), ALONE, Alone(), Recorder(), say=quiet)
    assert outcome.steps == 9


def test_progress_is_said_by_rank_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PRINT_EVERY_S", 0.0)
    said: list[str] = []
    train(Options(steps=2, batch=8), ALONE, Alone(), Recorder(), say=said.append)
    assert len(said) == 2
    assert "test accuracy" in said[0]


def test_seeds_change_what_is_learned() -> None:
    checksums = {
        train(Options(steps=1, batch=8, seed=seed), ALONE, Alone(), Recorder(), say=quiet).checksum
        for seed in (1, 1, 2)
    }
    assert len(checksums) == 2
    assert np.all(list(checksums))
