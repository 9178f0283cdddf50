"""The demo's all-reduce: the mean, the same bits for all, and a clear error for all when one is missing."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from tests.support.ports import free_port

from allranks.demo import allreduce
from allranks.demo.allreduce import PeerError, join

if TYPE_CHECKING:
    from collections.abc import Callable

    from allranks.demo.allreduce import Group

T = TypeVar("T")

HOST = "127.0.0.1"


def on_ranks(count: int, work: Callable[[int, Group], T], timeout_s: float = 60.0) -> list[Future[T]]:
    """Run `work` on each of `count` ranks that have joined; the futures are done."""
    port = free_port()

    def rank_main(rank: int) -> T:
        group = join(rank, count, HOST, port, timeout_s)
        try:
            return work(rank, group)
        finally:
            group.close()

    with ThreadPoolExecutor(count) as pool:
        return [pool.submit(rank_main, rank) for rank in range(count)]


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 10_001)) * 10.0 ** np.arange(count)[:, None]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_it_is_the_mean_and_the_same_bits_on_every_rank(count: int) -> None:
    sent = vectors(count)
    done = on_ranks(count, lambda rank, group: [group.mean(sent[rank]), group.mean(-sent[rank])])
    results = [future.result() for future in done]
    for first, second in results:
        np.testing.assert_allclose(first, np.mean(sent, axis=0), rtol=1e-12)
        np.testing.assert_array_equal(first, -second)
        assert first.tobytes() == results[0][0].tobytes()


def test_the_vector_that_was_given_is_left_as_it_was() -> None:
    sent = vectors(2)
    kept = sent.copy()
    on_ranks(2, lambda rank, group: group.mean(sent[rank]))
    np.testing.assert_array_equal(sent, kept)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_when_a_rank_goes_all_others_learn_which(gone: int) -> None:
    def work(rank: int, group: Group) -> None:
        if rank != gone:
            group.mean(np.zeros(3))

    for rank, future in enumerate(on_ranks(3, work)):
        if rank != gone:
            with pytest.raises(PeerError, match=f"rank {gone} is gone"):
                future.result()


def test_when_a_rank_is_stuck_all_others_learn_which() -> None:
    all_have_learnt = threading.Barrier(3, timeout=60.0)

    def work(rank: int, group: Group) -> None:
        try:
            if rank != 2:
                group.mean(np.zeros(3))
        finally:
            all_have_learnt.wait()

    first, second, _ = on_ranks(3, work, timeout_s=2.0)
    for future in (first, second):
        with pytest.raises(PeerError, match="rank 2 sent nothing"):
            future.result()


def test_ranks_with_vectors_of_other_lengths_all_learn_it() -> None:
    for future in on_ranks(2, lambda rank, group: group.mean(np.zeros(3 + rank))):
        with pytest.raises(PeerError, match="rank 1 sent 4 numbers, and rank 0 has 3"):
            future.result()


def test_a_rank_that_never_comes_is_named() -> None:
    with pytest.raises(PeerError, match=r"rank 1, 2 did not come within 0\.1 s"):
        join(0, 3, HOST, free_port(), 0.1)


def test_a_hub_that_never_comes_is_named() -> None:
    with pytest.raises(PeerError, match=r"rank 0 does not answer on 127\.0\.0\.1"):
        join(1, 2, HOST, free_port(), 0.2)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PeerError, match="cannot listen"):
            join(0, 2, HOST, port, 60.0)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n" + b"x" * 16, allreduce.pack(allreduce.VECTOR, b"12345678"), b""]
)
def test_a_stranger_on_the_port_disturbs_nobody(noise: bytes) -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        hub = pool.submit(join, 0, 2, HOST, port, 60.0)
        while True:
            try:
                stranger = socket.create_connection((HOST, port), 30.0)
                break
            except ConnectionRefusedError:
                assert not hub.done()
        with stranger:
            stranger.sendall(noise)
            with contextlib.suppress(OSError):  # it may be turned away before
                stranger.shutdown(socket.SHUT_WR)
            spoke = pool.submit(join, 1, 2, HOST, port, 60.0)
            for group in (hub.result(), spoke.result()):
                group.close()


def test_a_header_of_something_else_is_refused() -> None:
    with pytest.raises(PeerError, match="no rank of this demo"):
        allreduce.unpack_header(b"HTTP/1.1 200 OK\r")
    with pytest.raises(PeerError, match="no rank of this demo"):
        allreduce.unpack_header(allreduce.pack(1, b"")[:8] + b"\xff" * 8)


def test_a_frame_is_read_back() -> None:
    frame = allreduce.pack(allreduce.VECTOR, b"12345678")
    assert allreduce.unpack_header(frame[:16]) == (allreduce.VECTOR, 8)
    assert frame[16:] == b"12345678"
