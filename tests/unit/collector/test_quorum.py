"""Groups of ranks by where they stand: each rank in one, the largest first, the odd ones named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.quorum import Group, group, odd_ones, phrase, sentence

Frame = tuple[str, int, str]
_TORCH = "/opt/venv/lib/python3.12/site-packages/torch"
_OWN = ("/home/me/train.py", 88, "Trainer.step")
_ALL_REDUCE: tuple[Frame, ...] = (
    (f"{_TORCH}/distributed/distributed_c10d.py", 2700, "all_reduce"),
    (f"{_TORCH}/distributed/c10d_logger.py", 81, "wrapper"),
    _OWN,
    ("/home/me/train.py", 120, "<module>"),
)
_LOADER: tuple[Frame, ...] = (
    ("/usr/lib/python3.12/selectors.py", 415, "_PollLikeSelector.select"),
    ("/usr/lib/python3.12/multiprocessing/connection.py", 1136, "wait"),
    ("/usr/lib/python3.12/queue.py", 180, "Queue.get"),
    (f"{_TORCH}/utils/data/dataloader.py", 1100, "_MultiProcessingDataLoaderIter._try_get_data"),
    (f"{_TORCH}/utils/data/dataloader.py", 630, "_BaseDataLoaderIter.__next__"),
    ("/home/me/data.py", 41, "batches"),
    ("/home/me/train.py", 100, "<module>"),
)


def _at(*frames: Frame) -> dict[str, Any]:
    other = {"name": "pin", "id": 2, "main": False, "frames": [["/x/pin.py", 1, "loop"]]}
    return {"threads": [other, {"name": "MainThread", "id": 1, "main": True, "frames": [list(f) for f in frames]}]}


def test_the_odd_one_of_many_is_named() -> None:
    answers = {rank: _at(*_ALL_REDUCE) for rank in range(64)} | {17: _at(*_LOADER)}
    found = group(answers)
    assert sentence(found) == "63 in all_reduce train.py:88 · rank 17 in DataLoader.__next__ data.py:41"
    assert found[0].function == "step"


@pytest.mark.parametrize(
    ("answers", "odd"),
    [
        ({0: _ALL_REDUCE, 1: _ALL_REDUCE, 2: _LOADER}, {2}),
        ({0: None, 1: _ALL_REDUCE, 2: _ALL_REDUCE}, {0}),
        ({0: _ALL_REDUCE, 1: _LOADER}, set()),
        ({0: _ALL_REDUCE, 1: _ALL_REDUCE}, set()),
        ({0: None, 1: None, 2: _LOADER}, set()),
        ({}, set()),
    ],
)
def test_who_stands_elsewhere_than_most_is_odd(answers: dict[int, Any], odd: set[int]) -> None:
    told = {rank: {"reason": "no answer"} if frames is None else _at(*frames) for rank, frames in answers.items()}
    assert odd_ones([each.told() for each in group(told)]) == odd


@pytest.mark.parametrize(
    ("frames", "where"),
    [
        pytest.param(_ALL_REDUCE, "all_reduce train.py:88", id="a collective"),
        pytest.param(_LOADER, "DataLoader.__next__ data.py:41", id="the outermost known wait counts"),
        pytest.param([_OWN], "step train.py:88", id="C code called by the program itself"),
        pytest.param(
            [(f"{_TORCH}/cuda/__init__.py", 954, "synchronize"), _OWN], "cuda.synchronize train.py:88", id="CUDA"
        ),
        pytest.param(
            [
                (f"{_TORCH}/autograd/graph.py", 823, "_engine_run_backward"),
                (f"{_TORCH}/_tensor.py", 5, "backward"),
                _OWN,
            ],
            "backward train.py:88",
            id="backward",
        ),
        pytest.param([("/opt/lib/python3.12/json/x.py", 3, "load"), _OWN], "load train.py:88", id="not known"),
        pytest.param(
            [_ALL_REDUCE[0], _ALL_REDUCE[1], ("/a/lib/python3.12/site-packages/trainer/loop.py", 7, "loop")],
            "all_reduce loop.py:7",
            id="a program that is installed",
        ),
        pytest.param([], "C code without a Python frame", id="no frame"),
    ],
)
def test_where_a_stack_stands(frames: list[Frame], where: str) -> None:
    (found,) = group({3: _at(*frames)})
    assert (found.where, found.ranks, found.answered) == (where, (3,), True)


def test_ranks_without_stacks_are_told_by_the_reason() -> None:
    gone = {"reason": "dead"}
    found = group({0: _at(_OWN), 1: gone, 2: gone, 3: {"threads": []}, 5: gone})
    assert sentence(found) == "3 (ranks 1-2,5): dead · rank 0 in step train.py:88 · rank 3: no answer"


def test_a_large_group_is_told_by_its_size_alone() -> None:
    assert phrase(Group("barrier a.py:1", tuple(range(8)), answered=True)) == "8 (ranks 0-7) in barrier a.py:1"
    assert phrase(Group("barrier a.py:1", tuple(range(9)), answered=True)) == "9 in barrier a.py:1"


_frames = st.lists(
    st.tuples(
        st.sampled_from(
            ["/home/me/train.py", "/home/me/data.py", f"{_TORCH}/distributed/distributed_c10d.py", "", "<x>"]
        ),
        st.integers(0, 3),
        st.sampled_from(["all_reduce", "A.b", "<module>", "", "main.<locals>.f"]),
    ),
    max_size=4,
)
_answers = st.dictionaries(
    st.integers(0, 4096),
    st.one_of(_frames.map(lambda frames: _at(*frames)), st.just({"reason": "stopped"}), st.just({"threads": []})),
    max_size=40,
)


@given(_answers)
def test_each_rank_is_in_exactly_one_group_and_the_largest_comes_first(answers: dict[int, dict[str, Any]]) -> None:
    found = group(answers)
    assert sorted(rank for each in found for rank in each.ranks) == sorted(answers)
    sizes = [len(each.ranks) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    assert len({(each.where, each.function, each.file) for each in found}) == len(found)
    for each in found:
        assert list(each.ranks) == sorted(each.ranks)
        assert each.where
        assert each.where in sentence(found)


@given(_answers)
def test_ranks_that_answer_alike_stand_in_one_group(answers: dict[int, dict[str, Any]]) -> None:
    of = {rank: each for each in group(answers) for rank in each.ranks}
    for one, answer in answers.items():
        for other in answers:
            if answers[other] == answer:
                assert of[one] is of[other]
