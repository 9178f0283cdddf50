"""torch's tensors: which of their elements are stored, and where they are counted.

torch is never imported: tensors can only come where it is loaded.
"""

from __future__ import annotations

import sys
from typing import Any

from . import _device
from ._device import OnDevice
from .histograms import MAX_ELEMENTS, Unstorable, at_most, histogram


def on_device(value: Any) -> OnDevice | None:
    """A CUDA tensor's number or histogram, for whoever does not want to wait for it; None for anything else.

    Raises:
        Unstorable: as `values.convert`.
    """
    torch: Any = sys.modules.get("torch")
    kind: type[Any] | None = getattr(torch, "Tensor", None)  # None while torch is being imported elsewhere
    if kind is None or not isinstance(value, kind) or not value.is_cuda:
        return None
    tensor, total = _readable(torch, value)
    if total == 1:
        return _device.scalar(tensor)
    return _device.histogram(torch, _sampled(tensor, total, MAX_ELEMENTS), total)


def elements(torch: Any, tensor: Any) -> tuple[Any, int]:
    """A tensor's elements on the CPU, as a list or numpy array, sampled where there are too many; and how many there
    were. It waits for the device, as `.item()` does, and never for another rank.

    Raises:
        Unstorable: as `values.convert`.
    """
    tensor, total = _readable(torch, tensor)
    numpy = sys.modules.get("numpy")
    return _on_host(_sampled(tensor, total, at_most(numpy)), numpy), total


def tensor_histogram(torch: Any, tensor: Any, most: int) -> dict[str, Any] | OnDevice:
    """The histogram of at most `most` of a tensor's elements, however few it has; of a CUDA tensor, on its device.

    Raises:
        Unstorable: as `values.convert`.
    """
    tensor, total = _readable(torch, tensor)
    if tensor.is_cuda:
        return _device.histogram(torch, _sampled(tensor, total, most), total)
    numpy = sys.modules.get("numpy")
    return histogram(_on_host(_sampled(tensor, total, min(most, at_most(numpy))), numpy), total)


def _sampled(tensor: Any, total: int, most: int) -> Any:
    """At most so many of its elements, at even distances, in one row."""
    return tensor.reshape(-1)[:: -(-total // most)]


def _on_host(row: Any, numpy: Any) -> Any:
    row = row.cpu().double()
    return row.numpy() if numpy is not None else row.tolist()


def _readable(torch: Any, tensor: Any) -> tuple[Any, int]:
    """The tensor without its gradient, dense, and as far as this rank holds it; and how many elements it has."""
    if hasattr(tensor, "placements"):  # a DTensor: only a copy that this rank holds in full needs no collective
        if not all(placement.is_replicate() for placement in tensor.placements):
            raise Unstorable("the tensor is spread over ranks: log its full_tensor() or to_local()")
        tensor = tensor.to_local()
    tensor = tensor.detach()
    total = int(tensor.numel())
    if total == 0:
        raise Unstorable("the tensor is empty")
    if tensor.is_meta:
        raise Unstorable("a tensor on the meta device has no data")
    if tensor.is_complex():
        raise Unstorable("complex numbers are not stored: log .real and .imag")
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise Unstorable("a tensor cannot be read while a CUDA graph is captured: it would break the capture")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        if total > MAX_ELEMENTS:
            raise Unstorable(f"a sparse tensor of more than {MAX_ELEMENTS:,} elements: log its values()")
        tensor = tensor.to_dense()
    return tensor, total
