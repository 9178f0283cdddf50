"""Histograms that are counted where a tensor is: equal to those of the host, and without a question to the device."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from allranks import _device
from allranks.histograms import Unstorable, histogram


@given(st.lists(st.floats(), min_size=1, max_size=200))
@example([-2.802916502125675e-17])
def test_it_is_the_histogram_of_the_host(numbers: list[float]) -> None:
    counted = _device.histogram(torch, torch.tensor(numbers, dtype=torch.float64), len(numbers))
    if not any(map(math.isfinite, numbers)):
        with pytest.raises(Unstorable, match="no finite number"):
            counted.read(counted.tensor)
        return
    ours = counted.read(counted.tensor)
    assert isinstance(ours, dict)
    theirs = histogram(np.array(numbers), len(numbers))
    assert ours.keys() == theirs.keys()
    for key in ("_type", "bins", "min", "max", "count"):
        assert ours[key] == theirs[key]
    assert ours.get("nonfinite") == theirs.get("nonfinite")
    scale = max(abs(theirs["min"]), abs(theirs["max"]))
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-9, abs=1e-9 * scale)
    assert ours["std"] == pytest.approx(theirs["std"], rel=1e-6, abs=1e-6 * scale)
    # A value on an edge may fall to either side of it: the two divide in another order.
    drift = np.abs(np.cumsum(ours["counts"]) - np.cumsum(theirs["counts"]))
    edges = np.array(theirs["bins"][1:])
    finite = [number for number in numbers if math.isfinite(number)]
    # Around equal values the edges reach further than the values do.
    close = 1e-9 * max(scale, *np.abs(edges))
    near = [sum(math.isclose(number, edge, rel_tol=1e-9, abs_tol=close) for number in finite) for edge in edges]
    assert (drift <= near).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool])
def test_tensors_of_all_kinds_are_counted(dtype: torch.dtype) -> None:
    tensor = torch.arange(100).remainder(7).to(dtype)
    counted = _device.histogram(torch, tensor, 1000)
    body = counted.read(counted.tensor)
    assert isinstance(body, dict)
    assert body["count"] == sum(body["counts"]) == 100
    assert body["sample_of"] == 1000
    assert body["mean"] == pytest.approx(tensor.double().mean().item())


def test_nothing_of_it_asks_the_device() -> None:
    """A tensor of the meta device has no data: whatever needed some would fail."""
    counted = _device.histogram(torch, torch.empty(1000, device="meta"), 1000)
    assert counted.tensor.is_meta
    assert counted.tensor.numel() < 100


def test_it_can_be_counted_where_only_deterministic_work_is_allowed() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        counted = _device.histogram(torch, torch.randn(100), 100)
    finally:
        torch.use_deterministic_algorithms(False)
    assert isinstance(counted.read(counted.tensor), dict)


class Ctypes:
    """ctypes with a libcuda that remembers the mode that a thread was set to."""

    def __init__(self, answer: int | None) -> None:
        self.answer = answer
        self.modes: list[int] = []
        self.c_int = int

    def byref(self, value: object) -> object:
        return value

    def CDLL(self, name: str) -> Any:  # noqa: N802  (its own name)
        assert name == "libcuda.so.1"
        if self.answer is None:
            raise OSError(name)
        return SimpleNamespace(cuThreadExchangeStreamCaptureMode=self._exchange)

    def _exchange(self, mode: int) -> int | None:
        self.modes.append(mode)
        return self.answer


@pytest.mark.parametrize(("answer", "may"), [(0, True), (3, False), (None, False)])
def test_a_thread_may_ask_once_it_cannot_break_the_capture_of_another(
    monkeypatch: pytest.MonkeyPatch, answer: int | None, may: bool
) -> None:
    double = Ctypes(answer)
    monkeypatch.setattr(_device, "load", {"ctypes": double}.__getitem__)
    assert _device.may_ask_from_this_thread(SimpleNamespace(version=SimpleNamespace(cuda="12.8"))) is may
    assert double.modes == ([2] if answer is not None else [])


def test_without_cuda_nobody_but_the_program_asks() -> None:
    assert not _device.may_ask_from_this_thread(SimpleNamespace(version=SimpleNamespace(cuda=None)))
