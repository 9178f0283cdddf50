"""CUDA tensors, read without waiting for the device: the only module that asks anything of torch.cuda.

A copy into pinned memory is put into the stream that the training works in, and an event behind it. The training
goes on at once; once the event has come to pass, the copy is read like any other memory.

torch is never imported: a tensor can only come where it is loaded, so callers hand it in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._loading import load
from .histograms import BINS, Unstorable, from_device

# cuda.h: a thread in this mode may ask for events while another one captures a graph.
_CU_STREAM_CAPTURE_MODE_RELAXED = 2
# low, high, mean, std; the counts of the bins follow, and how many were not finite.
_FIGURES = 4


@dataclass(frozen=True)
class OnDevice:
    """A value that is still on its device.

    Attributes:
        tensor: small, and detached.
        read: makes what is stored of a copy of it on the host; raises Unstorable.
    """

    tensor: Any
    read: Callable[[Any], float | dict[str, Any]]


def scalar(tensor: Any) -> OnDevice:
    """The only element of `tensor`."""
    return OnDevice(tensor.reshape(()), lambda host: float(host.item()))


def histogram(torch: Any, flat: Any, total: int) -> OnDevice:
    """The histogram of `flat`, a sample of `total` elements, counted on the device.

    Neither `histc` nor `bincount`: they ask the device for the range, and wait for it. Nothing here overflows:
    all is reckoned in units of the largest value.
    """
    values = flat.to(torch.float64)
    finite = torch.isfinite(values)
    number = finite.sum()
    low = torch.where(finite, values, math.inf).amin()
    high = torch.where(finite, values, -math.inf).amax()
    scale = torch.maximum(low.abs(), high.abs())
    scale = torch.where(scale > 0, scale, 1.0)
    start = low / scale
    width = high / scale - start
    units = torch.where(finite, values / scale, start)
    mean = torch.where(finite, units, 0.0).sum() / number
    std = (torch.where(finite, (units - mean).square(), 0.0).sum() / number).sqrt()
    # Equal values lie in the middle of a range of some width, as in `histograms`.
    places = torch.where(width > 0, (units - start) / width * BINS, BINS / 2).clamp(0, BINS - 1)
    places = torch.where(finite, places, BINS).to(torch.int64)
    counts = torch.zeros(BINS + 1, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(0, places, torch.ones_like(places))
    packed = torch.cat((torch.stack((low, high, mean * scale, std * scale)), counts.to(torch.float64)))
    return OnDevice(packed, partial(_read_histogram, total))


def _read_histogram(total: int, host: Any) -> dict[str, Any]:
    numbers: list[float] = host.tolist()
    counts = [int(number) for number in numbers[_FIGURES:]]
    nonfinite = counts.pop()
    if not sum(counts):
        raise Unstorable("it holds no finite number")
    low, high, mean, std = numbers[:_FIGURES]
    return from_device(counts, (low, high, mean, std), nonfinite, total)


class Arrivals:
    """Values of one moment on their way to the host, under their names.

    Args:
        torch: the module.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._copies: dict[str, tuple[Any, Callable[[Any], float | dict[str, Any]]]] = {}
        # Device and event of each stream that a copy was put into, recorded anew behind the last of them.
        self._events: dict[Any, tuple[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def add(self, name: str, value: OnDevice) -> None:
        """Has `value` copied, in the stream that is current for its device; does not wait."""
        torch, tensor = self._torch, value.tensor
        # torch keeps pinned memory for the next time: only the first copies of a program allocate any.
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        stream = torch.cuda.current_stream(tensor.device)
        if stream not in self._events:
            self._events[stream] = (tensor.device, torch.cuda.Event())
        self._events[stream][1].record(stream)
        self._copies[name] = (host, value.read)

    def have_come(self) -> bool:
        """Whether all can be read; does not wait.

        Raises:
            Exception: the device has failed, and they never will.
        """
        for device, event in self._events.values():
            # A thread's device is the first one, on which to ask would take memory from another rank.
            with self._torch.cuda.device(device):
                if not event.query():
                    return False
        return True

    def read(self) -> tuple[dict[str, float | dict[str, Any]], dict[str, str]]:
        """The values, once they have come; and why others cannot be stored."""
        values: dict[str, float | dict[str, Any]] = {}
        problems: dict[str, str] = {}
        for name, (host, read) in self._copies.items():
            try:
                values[name] = read(host)
            except Unstorable as error:
                problems[name] = str(error)
        return values, problems


def may_ask_from_this_thread(torch: Any) -> bool:
    """Makes it safe for this thread, one of ours, to ask for events at any time; False where that cannot be had.

    While any thread captures a CUDA graph in torch's usual mode, a question from another one breaks the capture,
    unless that other one is in the relaxed mode, which is a thread's own.
    """
    if not torch.version.cuda:  # ROCm has the same rule, and no library of one name
        return False
    ctypes = load("ctypes")
    try:
        mode = ctypes.c_int(_CU_STREAM_CAPTURE_MODE_RELAXED)
        return bool(ctypes.CDLL("libcuda.so.1").cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)) == 0)
    except (OSError, AttributeError):
        return False
