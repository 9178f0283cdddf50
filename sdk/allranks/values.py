"""The slow path of `log()`: whatever somebody logs becomes numbers, text and histograms, or a problem with a name.

Nothing here raises, and what cannot be stored never costs the values beside it. numpy and torch are never imported:
values of theirs can only come where they are loaded, so they are found in sys.modules.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_NAME_BYTES = 1_024
MAX_TEXT_BYTES = 64 * 1024
BINS = 64
# More elements than this are sampled at even distances; fewer where numpy is not there to count them.
MAX_ELEMENTS = 1_000_000
MAX_ELEMENTS_WITHOUT_NUMPY = 100_000

_SURROGATES = re.compile("[\ud800-\udfff]")
_COLLECTIONS = (list, tuple, set, frozenset, range, deque)


@dataclass(frozen=True)
class Flat:
    """One call's data: names joined with "/".

    Attributes:
        others: text, and objects as protocol.md §5 has them.
        problems: a name, and why its value is not stored, or not all of it.
    """

    numbers: dict[str, float] = field(default_factory=dict[str, float])
    others: dict[str, str | dict[str, Any]] = field(default_factory=dict[str, "str | dict[str, Any]"])
    problems: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


class Histogram:
    """The distribution of many numbers, counted at once; what is wrong with them is told when it is logged.

    Args:
        values: an array, tensor or list of numbers; or (counts, edges) as `numpy.histogram` returns them, one edge
            more than counts.
        bins: how many bins of one width to count values into.
    """

    def __init__(self, values: object, bins: int = BINS) -> None:
        self.body: dict[str, Any] = {}
        self.problem: str | None = None
        try:
            counted = _counts_and_edges(values)
            self.body = _from_counts(*counted) if counted else _histogram(*_elements(values), bins)
        except _Unstorable as error:
            self.problem = str(error)
        except Exception as error:
            self.problem = _reason(error)

    def __repr__(self) -> str:
        return f"Histogram({self.problem or self.body!r:.80})"


class _Unstorable(Exception):
    """Why a value cannot be stored."""


def flatten(data: object) -> Flat:
    """All that can be stored of `data`, a dict of names to values or dicts; never raises."""
    work = _Flattening()
    try:
        if isinstance(data, Mapping):
            work.add_mapping("", data, 0)
        else:
            work.flat.problems.append(("data", f"log() takes a dict of names and values, not a {_type_name(data)}"))
    except Exception as error:
        work.flat.problems.append(("data", _reason(error)))
    return work.flat


class _Flattening:
    """One walk through nested dicts, bounded in depth and in number."""

    def __init__(self) -> None:
        self.flat = Flat()
        self._count = 0
        self._is_full = False
        self._open: set[int] = set()  # the dicts that we are within

    def add_mapping(self, prefix: str, mapping: Mapping[Any, Any], depth: int) -> None:
        if id(mapping) in self._open:
            raise _Unstorable("the dict holds itself")
        if depth >= MAX_DEPTH:
            raise _Unstorable(f"dicts are nested more than {MAX_DEPTH} deep")
        self._open.add(id(mapping))
        try:
            for key, value in _items(mapping, MAX_VALUES - self._count + 1):
                if self._count < MAX_VALUES:
                    self._add(prefix, key, value, depth)
                elif not self._is_full:
                    self._is_full = True
                    raise _Unstorable(f"more than {MAX_VALUES:,} values in one call: the rest is left out")
        finally:
            self._open.discard(id(mapping))

    def _add(self, prefix: str, key: object, value: object, depth: int) -> None:
        name = f"{prefix}<{_type_name(key)}>"
        try:
            name = prefix + _key_text(key)
            if isinstance(value, Mapping):
                self.add_mapping(name + "/", value, depth + 1)
                return
            self._count += 1
            self._store(self._checked_name(name), convert(value), value)
        except _Unstorable as error:
            self.flat.problems.append((name, str(error)))
        except Exception as error:  # an object of the user's raised: its value only is lost
            self.flat.problems.append((name, _reason(error)))

    def _store(self, name: str, value: float | str | dict[str, Any], given: object) -> None:
        flat = self.flat
        if name in flat.numbers or name in flat.others:
            flat.problems.append((name, "the name came twice in one call: the last value is kept"))
            flat.numbers.pop(name, None)
            flat.others.pop(name, None)
        if isinstance(value, (int, float)):
            flat.numbers[name] = value
            return
        if isinstance(value, str) and isinstance(given, str) and len(value) < len(given):
            flat.problems.append(
                (name, f"text is cut after {MAX_TEXT_BYTES // 1024} KiB, it had {len(given):,} letters")
            )
        flat.others[name] = value

    def _checked_name(self, name: str) -> str:
        if not name:
            raise _Unstorable("the name is empty")
        short = _cut(name, MAX_NAME_BYTES)
        if len(short) < len(name):
            self.flat.problems.append((short, f"the name is cut after {MAX_NAME_BYTES:,} bytes"))
        return short


def convert(value: object) -> float | str | dict[str, Any]:
    """One value as it is stored: a float, text, or an object.

    Raises:
        _Unstorable: with the reason, for people. Anything else comes from the value's own methods.
    """
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, str):
        return _cut(_clean(str.__str__(value)), MAX_TEXT_BYTES)
    if value is None:
        raise _Unstorable("None is not a value: leave the name out")
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _Unstorable("bytes are not stored: decode them to text first")
    if isinstance(value, complex):
        raise _Unstorable("complex numbers are not stored: log .real and .imag")
    if isinstance(value, Histogram):
        if value.problem is not None:
            raise _Unstorable(value.problem)
        return value.body
    if isinstance(value, Enum):
        return convert(value.value if isinstance(value.value, (int, float, str)) else value.name)
    if type(value).__module__ == "datetime" or _is_pandas_scalar(value):
        return _time(value)
    if isinstance(value, _COLLECTIONS) or _is_array(value):
        elements, total = _elements(value)
        return _histogram(elements, total) if total > 1 else _single(elements)
    return _by_its_methods(value)


def _single(elements: Any) -> float | str:
    """An array's only element."""
    element = elements[0]
    if isinstance(element, str):
        return _cut(_clean(element), MAX_TEXT_BYTES)
    return float(element)


def _is_pandas_scalar(value: object) -> bool:
    """A Timestamp, Timedelta, NaT … which numpy would wrap as an object."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "pandas" and hasattr(kind, "to_numpy") and not hasattr(kind, "shape")


def _time(value: Any) -> float | str:
    """A time as ISO 8601 text, a duration in seconds."""
    if str(value) == "NaT":
        raise _Unstorable("NaT is not a time")
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise _Unstorable(f"a {_type_name(value)} is not stored: convert it to a number or text")


def _by_its_methods(value: object) -> float:
    """Whatever says that it is a number: Decimal, Fraction …"""
    kind = type(value)
    if hasattr(kind, "__float__"):
        return float(value)  # type: ignore[arg-type]
    if hasattr(kind, "__index__"):
        return _whole(value.__index__())  # type: ignore[attr-defined]
    raise _Unstorable(f"a {_type_name(value)} is no number, text, dict or array")


def _whole(value: int) -> float:
    """The nearest double; ints beyond ±2⁵³ lose their last digits."""
    try:
        return int.__float__(value)
    except OverflowError:
        raise _Unstorable("the number is beyond a double's range (about 1.8e308)") from None


# --- many numbers ----------------------------------------------------------------------------------------------


def _is_array(value: object) -> bool:
    """numpy's, torch's, jax's, pandas's … arrays and scalars alike."""
    kind = type(value)
    return (
        (hasattr(kind, "dtype") and hasattr(kind, "shape")) or hasattr(kind, "to_numpy") or kind.__module__ == "array"
    )


def _elements(value: object) -> tuple[Any, int]:
    """The elements as a flat list or numpy array, sampled where there are too many; and how many there were."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_elements(torch, value)
    if isinstance(value, _COLLECTIONS) or type(value).__module__ == "array":
        return _list_elements(value)
    if _is_array(value):
        return _numpy_elements(value)
    raise _Unstorable(f"a {_type_name(value)} holds no numbers")


def _torch_elements(torch: Any, tensor: Any) -> tuple[Any, int]:
    """A tensor's elements, on the CPU. It waits for the device, as `.item()` does, and never for another rank."""
    if hasattr(tensor, "placements"):  # a DTensor: only a copy that this rank holds in full needs no collective
        if not all(placement.is_replicate() for placement in tensor.placements):
            raise _Unstorable("the tensor is spread over ranks: log its full_tensor() or to_local()")
        tensor = tensor.to_local()
    tensor = tensor.detach()
    total = int(tensor.numel())
    if total == 0:
        raise _Unstorable("the tensor is empty")
    if tensor.is_meta:
        raise _Unstorable("a tensor on the meta device has no data")
    if tensor.is_complex():
        raise _Unstorable("complex numbers are not stored: log .real and .imag")
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise _Unstorable("a tensor cannot be read while a CUDA graph is captured: it would break the capture")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        if total > MAX_ELEMENTS:
            raise _Unstorable(f"a sparse tensor of more than {MAX_ELEMENTS:,} elements: log its values()")
        tensor = tensor.to_dense()
    numpy = sys.modules.get("numpy")
    step = _step(total, numpy)
    flat = tensor.reshape(-1)[::step].cpu().double()
    return (flat.numpy() if numpy is not None else flat.tolist()), total


def _numpy_elements(value: Any) -> tuple[Any, int]:
    """The elements of whatever numpy can read: its own, pandas's, jax's arrays and scalars."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        if getattr(value, "shape", None) == ():
            return [float(value.item())], 1
        return _list_elements(value.tolist())
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        value = value.compressed()
    array = numpy.asarray(value)
    total = int(array.size)
    if total == 0:
        raise _Unstorable("the array is empty")
    array = array.reshape(-1)[:: _step(total, numpy)]
    kind = array.dtype.kind
    if kind == "O" and total == 1 and array[0] is value:  # numpy knows it no better than we do
        return [_by_its_methods(value)], 1
    if kind in "OUM":
        return _numpy_objects(array, kind), total
    if kind in "cSm" or array.dtype.names is not None:
        raise _Unstorable(f"an array of {array.dtype} is not stored: convert it to numbers first")
    with numpy.errstate(all="ignore"):
        return array.astype(numpy.float64), total


def _numpy_objects(array: Any, kind: str) -> list[Any]:
    """Objects one by one; of times and text only a single one is stored."""
    if kind == "O":
        return [_number(element) for element in array]
    if array.size > 1:
        raise _Unstorable(f"an array of {array.dtype} is not stored: convert it to numbers first")
    return [str(array[0])]


def _list_elements(values: Any) -> tuple[Any, int]:
    """A collection's numbers; lists within it are taken into it."""
    numpy = sys.modules.get("numpy")
    total = len(values)
    if total == 0:
        raise _Unstorable("the list is empty")
    step = _step(total, numpy)
    most = _most(numpy)
    chosen: Iterable[Any] = itertools.islice(values, 0, None, step)
    numbers = list(itertools.islice(_leaves(chosen, 0), most + 1))
    if len(numbers) > most:  # small lists within hold more than can be told by its length
        raise _Unstorable(f"lists within lists hold more than {most:,} numbers: log an array")
    if not numbers:
        raise _Unstorable("the list is empty")
    return numbers, max(total, len(numbers))


def _leaves(values: Iterable[Any], depth: int) -> Iterable[float]:
    if depth >= MAX_DEPTH:
        raise _Unstorable(f"lists are nested more than {MAX_DEPTH} deep")
    for value in values:
        kind = type(value)
        if kind is float:
            yield value
        elif isinstance(value, _COLLECTIONS):
            yield from _leaves(value, depth + 1)
        else:
            yield _number(value)


def _number(value: object) -> float:
    """One element of a list, which must be a number."""
    if isinstance(value, str):
        raise _Unstorable("a list of text is not stored: join it, or log it as config")
    if isinstance(value, Mapping):
        raise _Unstorable("a list of dicts is not stored: log a dict of names")
    number = convert(value)
    if not isinstance(number, float):
        raise _Unstorable(f"a list of {_type_name(value)} is not stored: only numbers make a histogram")
    return number


def _most(numpy: object) -> int:
    return MAX_ELEMENTS if numpy is not None else MAX_ELEMENTS_WITHOUT_NUMPY


def _step(total: int, numpy: object) -> int:
    return -(-total // _most(numpy))


def _histogram(elements: Any, total: int, bins: int = BINS) -> dict[str, Any]:
    """The object of protocol.md §5, with `nonfinite` values left out, and `sample_of` where not all were seen."""
    if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= 4096:
        raise _Unstorable(f"bins={bins!r:.80} is not a whole number from 1 to 4096")
    numpy = sys.modules.get("numpy")
    counted = _count_with_python(elements, bins) if numpy is None else _count_with_numpy(numpy, elements, bins)
    if len(elements) < total:
        counted["sample_of"] = total
    return counted


def _count_with_numpy(numpy: Any, elements: Any, bins: int) -> dict[str, Any]:
    every = numpy.asarray(elements, dtype=numpy.float64)
    values = every[numpy.isfinite(every)]
    if not values.size:
        raise _Unstorable("it holds no finite number")
    with numpy.errstate(all="ignore"):
        low, high = float(values.min()), float(values.max())
        start, width, half = _range(low, high)
        places = ((values * half - start * half) / width * bins).astype(numpy.int64)
        counts = numpy.bincount(places.clip(0, bins - 1), minlength=bins)
        scale = max(abs(low), abs(high)) or 1.0
        mean, std = float((values / scale).mean()) * scale, float((values / scale).std()) * scale
    return _body(counts.tolist(), _edges(low, high, bins), (low, high, mean, std), len(every))


def _count_with_python(elements: Sequence[float], bins: int) -> dict[str, Any]:
    values = [value for value in elements if math.isfinite(value)]
    if not values:
        raise _Unstorable("it holds no finite number")
    low, high = min(values), max(values)
    start, width, half = _range(low, high)
    counts = [0] * bins
    for value in values:
        place = int((value * half - start * half) / width * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    scale = max(abs(low), abs(high)) or 1.0
    mean = math.fsum(value / scale for value in values) / len(values)
    std = math.sqrt(math.fsum((value / scale - mean) ** 2 for value in values) / len(values))
    return _body(counts, _edges(low, high, bins), (low, high, mean * scale, std * scale), len(elements))


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Where the bins start, and how wide all are together, times the factor that keeps it below infinity."""
    start, end = _ends(low, high)
    half = 1.0 if math.isfinite(end - start) else 0.5
    return start, end * half - start * half, half


def _ends(low: float, high: float) -> tuple[float, float]:
    """Equal values get a bin of some width around them."""
    if low < high:
        return low, high
    margin, most = max(0.5, abs(low) * 1e-9), sys.float_info.max
    return max(low - margin, -most), min(high + margin, most)


def _edges(low: float, high: float, bins: int) -> list[float]:
    """One edge more than bins. Each step rounds the same way, so that they never descend."""
    start, end = _ends(low, high)
    _, width, half = _range(low, high)
    inner = ((start * half + width * (place / bins)) / half for place in range(1, bins))
    return [start, *(min(edge, end) for edge in inner), end]


def _body(
    counts: list[int], edges: list[float], figures: tuple[float, float, float, float], total: int
) -> dict[str, Any]:
    low, high, mean, std = figures
    count = sum(counts)
    body: dict[str, Any] = {"_type": "histogram", "bins": edges, "counts": counts, "min": low, "max": high}
    body |= {"mean": min(max(mean, low), high), "std": std, "count": count}
    return body | {"nonfinite": total - count} if total > count else body


def _counts_and_edges(values: object) -> tuple[list[float], list[float]] | None:
    """(counts, edges) as numpy.histogram returns them; None for plain values."""
    if not isinstance(values, tuple) or len(values) != 2:
        return None
    if not all(_is_array(part) or isinstance(part, (list, tuple)) for part in values):
        return None
    (counts, count_total), (edges, edge_total) = (_elements(part) for part in values)
    if edge_total != count_total + 1:
        raise _Unstorable(f"{count_total} counts need {count_total + 1} edges, there are {edge_total}")
    return [float(count) for count in counts], [float(edge) for edge in edges]


def _from_counts(counts: list[float], edges: list[float]) -> dict[str, Any]:
    """The object for bins that somebody counted; mean and std are those of the bins' middles."""
    if not all(map(math.isfinite, (*counts, *edges))) or any(count < 0 for count in counts):
        raise _Unstorable("counts and edges must be finite, and counts not negative")
    if any(after < before for before, after in itertools.pairwise(edges)):
        raise _Unstorable("edges must ascend")
    if len(counts) > 4096:
        raise _Unstorable("more than 4096 bins")
    count = math.fsum(counts)
    if not count:
        raise _Unstorable("all counts are 0")
    middles = [before * 0.5 + after * 0.5 for before, after in itertools.pairwise(edges)]
    mean = math.fsum(number / count * middle for number, middle in zip(counts, middles, strict=True))
    variance = math.fsum(
        number / count * (middle - mean) ** 2 for number, middle in zip(counts, middles, strict=True)
    )
    whole = [int(number) if number == int(number) else number for number in counts]
    figures = {"min": edges[0], "max": edges[-1], "mean": mean, "std": math.sqrt(variance)}
    return {"_type": "histogram", "bins": edges, "counts": whole, **figures, "count": sum(whole)}


# --- names and text --------------------------------------------------------------------------------------------


def _items(mapping: Mapping[Any, Any], most: int) -> list[tuple[Any, Any]]:
    """The first `most` items; of a dict its real ones, whatever its class overrides."""
    items = dict.items(mapping) if isinstance(mapping, dict) else ((key, mapping[key]) for key in mapping)
    return list(itertools.islice(items, most))


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return _clean(str.__str__(key))
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return _clean(str(key))


def _clean(text: str) -> str:
    """Lone surrogates cannot be UTF-8."""
    return _SURROGATES.sub("\ufffd", text)


def _cut(text: str, limit: int) -> str:
    """The longest start of `text` that has at most `limit` bytes in UTF-8."""
    head = text[:limit]  # a letter has at least one byte
    encoded = head.encode()
    return encoded[:limit].decode("utf-8", "ignore") if len(encoded) > limit else head


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _reason(error: Exception) -> str:
    """What this exception says, in a short line; its own text may raise too."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except Exception:
        return type(error).__name__
