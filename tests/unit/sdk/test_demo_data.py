"""The demo's data: shards share the samples out, and all ranks take the same number of steps."""

from __future__ import annotations

import numpy as np
import pytest

from allranks.demo import data


def numbered(count: int) -> data.Samples:
    return data.Samples(np.zeros((count, 64)), np.arange(count))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 10])
def test_each_sample_is_on_exactly_one_rank(world_size: int) -> None:
    shards = [data.shard(numbered(10), rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate([shard.labels for shard in shards])) == list(range(10))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_more_ranks_than_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="3 samples cannot be shared by 4 ranks"):
        data.shard(numbered(3), 0, 4)


def test_the_split_is_the_same_each_time_and_shares_no_digit() -> None:
    train, held_out = data.load()
    again, _ = data.load()
    assert train.x.tobytes() == again.x.tobytes()
    assert (len(train), len(held_out)) == (1438, 359)
    assert (train.x.min(), train.x.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("samples", "world_size", "wanted", "size", "steps"), [(100, 4, 10, 10, 2), (10, 4, 64, 2, 1)]
)
def test_every_rank_has_as_many_full_batches(
    samples: int, world_size: int, wanted: int, size: int, steps: int
) -> None:
    assert data.batch_size(samples, world_size, wanted) == size
    assert data.steps_per_epoch(samples, world_size, size) == steps


def test_batches_pass_over_all_samples_in_changing_order() -> None:
    batches = data.batches(numbered(6), 3, np.random.default_rng(0))
    passes = [np.concatenate([next(batches).labels, next(batches).labels]) for _ in range(3)]
    assert all(sorted(labels) == list(range(6)) for labels in passes)
    assert len({tuple(labels) for labels in passes}) > 1


def test_augmenting_moves_an_image_by_one_pixel_at_most() -> None:
    image = np.zeros((200, 8, 8))
    image[:, 4, 4] = 100.0
    moved = data.augment(image.reshape(200, 64), np.random.default_rng(0)).argmax(axis=1)
    assert {(place // 8 - 4, place % 8 - 4) for place in moved.tolist()} == {
        (down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
