"""The slow path of `log()`: whatever somebody logs becomes numbers, text and histograms, or a problem with a name.

Nothing here raises, but for what a signal handler of the program raises meanwhile; and what cannot be stored never
costs the values beside it. numpy and torch are never imported: values of theirs can only come where they are loaded,
so they are found in sys.modules.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from . import _tensors
from ._device import OnDevice
from ._signals import is_from_handler
from .histograms import BINS, Unstorable, at_most, from_counts, histogram

MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_NAME_BYTES = 1_024
MAX_TEXT_BYTES = 64 * 1024

_SURROGATES = re.compile("[\ud800-\udfff]")
_COLLECTIONS = (list, tuple, set, frozenset, range, deque)


@dataclass(frozen=True)
class Flat:
    """One call's data: names joined with "/".

    Attributes:
        others: text, and objects as protocol.md §5 has them.
        problems: a name, and in words that its value is not stored, or not all of it, and why.
        on_device: what must not be waited for.
    """

    numbers: dict[str, float] = field(default_factory=dict[str, float])
    others: dict[str, str | dict[str, Any]] = field(default_factory=dict[str, "str | dict[str, Any]"])
    problems: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    on_device: dict[str, OnDevice] = field(default_factory=dict[str, OnDevice])


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
            self.body = from_counts(*counted) if counted else histogram(*_elements(values), bins=bins)
        except Unstorable as error:
            self.problem = str(error)
        except Exception as error:
            if is_from_handler(error):
                raise
            self.problem = _reason(error)

    def __repr__(self) -> str:
        return f"Histogram({self.problem or self.body!r:.80})"


def flatten(data: object) -> Flat:
    """All that can be stored of `data`, a dict of names to values or dicts; never raises."""
    work = _Flattening()
    try:
        if isinstance(data, Mapping):
            work.add_mapping("", data, 0)
        else:
            work.flat.problems.append(("data", f"log() takes a dict of names and values, not a {_type_name(data)}"))
    except Unstorable as error:
        work.flat.problems.append(("data", str(error)))
    except Exception as error:
        if is_from_handler(error):
            raise
        work.flat.problems.append(("data", f"it cannot be read: {_reason(error)}"))
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
            raise Unstorable("the dict holds itself")
        if depth >= MAX_DEPTH:
            raise Unstorable(f"dicts are nested more than {MAX_DEPTH} deep")
        self._open.add(id(mapping))
        try:
            for key, value in _items(mapping, MAX_VALUES - self._count + 1):
                if self._count < MAX_VALUES:
                    self._add(prefix, key, value, depth)
                elif not self._is_full:
                    self._is_full = True
                    problem = f"more than {MAX_VALUES:,} values in one call: the rest is left out"
                    self.flat.problems.append((prefix.rstrip("/") or "data", problem))
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
            name = self._checked_name(name)
            self._store(name, convert(value) if (found := _tensors.on_device(value)) is None else found, value)
        except Unstorable as error:
            self.flat.problems.append((name, f"it is not stored: {error}"))
        except Exception as error:  # an object of the user's raised: its value only is lost
            if is_from_handler(error):
                raise
            self.flat.problems.append((name, f"it is not stored: {_reason(error)}"))

    def _store(self, name: str, value: float | str | dict[str, Any] | OnDevice, given: object) -> None:
        flat = self.flat
        for kept in (flat.numbers, flat.others, flat.on_device):
            if kept.pop(name, None) is not None:
                flat.problems.append((name, "the name came twice in one call: the last value is kept"))
        if isinstance(value, (int, float)):
            flat.numbers[name] = value
            return
        if isinstance(value, OnDevice):
            flat.on_device[name] = value
            return
        if isinstance(value, str) and isinstance(given, str) and len(value) < len(given):
            flat.problems.append(
                (name, f"text is cut after {MAX_TEXT_BYTES // 1024} KiB, it had {len(given):,} letters")
            )
        flat.others[name] = value

    def _checked_name(self, name: str) -> str:
        if not name:
            raise Unstorable("the name is empty")
        short = _cut(name, MAX_NAME_BYTES)
        if len(short) < len(name):
            self.flat.problems.append((short, f"the name is cut after {MAX_NAME_BYTES:,} bytes"))
        return short


def convert(value: object) -> float | str | dict[str, Any]:
    """One value as it is stored: a float, text, or an object.

    Raises:
        Unstorable: with the reason, for people. Anything else comes from the value's own methods.
    """
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, str):
        return _cut(_clean(str.__str__(value)), MAX_TEXT_BYTES)
    if value is None:
        raise Unstorable("None is not a value: leave the name out")
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise Unstorable("bytes are not stored: decode them to text first")
    if isinstance(value, complex):
        raise Unstorable("complex numbers are not stored: log .real and .imag")
    if isinstance(value, Histogram):
        if value.problem is not None:
            raise Unstorable(value.problem)
        return value.body
    if isinstance(value, Enum):
        return convert(value.value if isinstance(value.value, (int, float, str)) else value.name)
    if type(value).__module__ == "datetime" or _is_pandas_scalar(value):
        return _time(value)
    if isinstance(value, _COLLECTIONS) or _is_array(value):
        elements, total = _elements(value)
        return histogram(elements, total) if total > 1 else _single(elements)
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
        raise Unstorable("NaT is not a time")
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise Unstorable(f"a {_type_name(value)} is not stored: convert it to a number or text")


def _by_its_methods(value: object) -> float:
    """Whatever says that it is a number: Decimal, Fraction …"""
    kind = type(value)
    if hasattr(kind, "__float__"):
        return float(value)  # type: ignore[arg-type]
    if hasattr(kind, "__index__"):
        return _whole(value.__index__())  # type: ignore[attr-defined]
    raise Unstorable(f"a {_type_name(value)} is no number, text, dict or array")


def _whole(value: int) -> float:
    """The nearest double; ints beyond ±2⁵³ lose their last digits."""
    try:
        return int.__float__(value)
    except OverflowError:
        raise Unstorable("the number is beyond a double's range (about 1.8e308)") from None


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
        return _tensors.elements(torch, value)
    if isinstance(value, _COLLECTIONS) or type(value).__module__ == "array":
        return _list_elements(value)
    if _is_array(value):
        return _numpy_elements(value)
    raise Unstorable(f"a {_type_name(value)} holds no numbers")


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
        raise Unstorable("the array is empty")
    array = array.reshape(-1)[:: _step(total, numpy)]
    kind = array.dtype.kind
    if kind == "O" and total == 1 and array[0] is value:  # numpy knows it no better than we do
        return [_by_its_methods(value)], 1
    if kind in "OUM":
        return _numpy_objects(array, kind), total
    if kind in "cSm" or array.dtype.names is not None:
        raise Unstorable(f"an array of {array.dtype} is not stored: convert it to numbers first")
    with numpy.errstate(all="ignore"):
        return array.astype(numpy.float64), total


def _numpy_objects(array: Any, kind: str) -> list[Any]:
    """Objects one by one; of times and text only a single one is stored."""
    if kind == "O":
        return [_number(element) for element in array]
    if array.size > 1:
        raise Unstorable(f"an array of {array.dtype} is not stored: convert it to numbers first")
    text = str(array[0])
    if kind == "M" and text == "NaT":
        raise Unstorable("NaT is not a time")
    return [text]


def _list_elements(values: Any) -> tuple[Any, int]:
    """A collection's numbers; lists within it are taken into it."""
    numpy = sys.modules.get("numpy")
    total = len(values)
    if total == 0:
        raise Unstorable("the list is empty")
    step = _step(total, numpy)
    most = at_most(numpy)
    chosen: Iterable[Any] = itertools.islice(values, 0, None, step)
    numbers = list(itertools.islice(_leaves(chosen, 0), most + 1))
    if len(numbers) > most:  # small lists within hold more than can be told by its length
        raise Unstorable(f"lists within lists hold more than {most:,} numbers: log an array")
    if not numbers:
        raise Unstorable("the list is empty")
    return numbers, max(total, len(numbers))


def _leaves(values: Iterable[Any], depth: int) -> Iterable[float]:
    if depth >= MAX_DEPTH:
        raise Unstorable(f"lists are nested more than {MAX_DEPTH} deep")
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
        raise Unstorable("a list of text is not stored: join it, or log it as config")
    if isinstance(value, Mapping):
        raise Unstorable("a list of dicts is not stored: log a dict of names")
    number = convert(value)
    if not isinstance(number, float):
        raise Unstorable(f"a list of {_type_name(value)} is not stored: only numbers make a histogram")
    return number


def _step(total: int, numpy: object) -> int:
    return -(-total // at_most(numpy))


def _counts_and_edges(values: object) -> tuple[list[float], list[float]] | None:
    """(counts, edges) as numpy.histogram returns them; None for plain values."""
    if not isinstance(values, tuple) or len(values) != 2:
        return None
    if not all(_is_array(part) or isinstance(part, (list, tuple)) for part in values):
        return None
    (counts, count_total), (edges, edge_total) = (_elements(part) for part in values)
    if edge_total != count_total + 1:
        raise Unstorable(f"{count_total} counts need {count_total + 1} edges, there are {edge_total}")
    return [float(count) for count in counts], [float(edge) for edge in edges]


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
