"""A double of torch with one CUDA device, which does its work when the test says so, and cannot be waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

STRIDED = object()


class Device:
    """What has been put into the stream, until `run`."""

    def __init__(self) -> None:
        self._orders: list[Callable[[], None]] = []
        self.is_broken = False
        self.is_capturing = False
        self.queries = 0
        self.current = "cuda:7"

    @contextlib.contextmanager
    def made_current(self, name: str) -> Generator[None]:
        before, self.current = self.current, name
        try:
            yield
        finally:
            self.current = before

    def order(self, what: Callable[[], None]) -> None:
        self._orders.append(what)

    def run(self) -> None:
        """Does all that has been ordered."""
        orders, self._orders = self._orders, []
        for what in orders:
            what()


class Tensor:
    """A tensor of one number."""

    layout = STRIDED
    is_meta = False
    is_quantized = False
    is_cuda = False

    def __init__(self, number: float) -> None:
        self.number = number

    def numel(self) -> int:
        return 1

    def is_complex(self) -> bool:
        return False

    def detach(self) -> Tensor:
        return self

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        assert shape == ()
        return self


class CudaTensor(Tensor):
    """One on the device; whatever would wait for the device fails the test."""

    is_cuda = True
    dtype, shape, device = "float32", (), "cuda:0"

    def item(self) -> float:
        raise AssertionError("this waits for the device")

    cpu = tolist = __float__ = __bool__ = __array__ = item


class HostTensor(Tensor):
    """Pinned memory: garbage until the device has written it."""

    def __init__(self, device: Device) -> None:
        super().__init__(-12345.0)
        self._device = device

    def copy_(self, source: Tensor, *, non_blocking: bool) -> None:
        assert non_blocking
        now = source.number  # what is ordered later comes later
        self._device.order(lambda: setattr(self, "number", now))

    def item(self) -> float:
        return self.number


class Event:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._wanted = self._reached = 0

    def record(self, stream: str) -> None:
        self._wanted += 1
        nth = self._wanted
        self._device.order(lambda: setattr(self, "_reached", nth))

    def query(self) -> bool:
        assert self._device.current == "cuda:0", "asked on another device than that of the event"
        self._device.queries += 1
        if self._device.is_broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return self._reached == self._wanted


def fake_torch(device: Device) -> Any:
    """What stands in sys.modules as torch."""

    def empty_like(tensor: Tensor, *, device: str, pin_memory: bool) -> HostTensor:
        assert device == "cpu"
        assert pin_memory
        return HostTensor(double)

    double = device
    return SimpleNamespace(
        Tensor=Tensor,
        strided=STRIDED,
        empty_like=empty_like,
        version=SimpleNamespace(cuda=None),
        cuda=SimpleNamespace(
            Event=lambda: Event(device),
            device=device.made_current,
            current_stream="stream of {}".format,
            is_current_stream_capturing=lambda: device.is_capturing,
        ),
    )
