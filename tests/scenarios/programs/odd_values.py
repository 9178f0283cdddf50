"""Logs whatever nobody should log, each between two plain numbers, and tells what it expects to be stored of it.

Started with `tensors`, torch is loaded too, and its values are among them. Prints a line of JSON for each event: its
step, its name, and the number or text that is to be stored of it; null where nothing is.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import itertools
import json
import math
import sys
import types
import unittest.mock
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import pandas as pd

import allranks


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Raises:
    """Every method of it raises."""

    def _fail(self, *_: object) -> NoReturn:
        raise RuntimeError("mine")

    __str__ = __repr__ = __float__ = __index__ = __len__ = __iter__ = __bool__ = __eq__ = __getattr__ = _fail
    __hash__ = object.__hash__


class RaisesWithoutText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class RaisesSilently:
    def __float__(self) -> float:
        raise RaisesWithoutText


class NoFloat:
    def __float__(self) -> Any:
        return "1.0"


class Endless:
    """A number that never comes to an end of its asking."""

    def __float__(self) -> float:
        return float(self)


class LogsItself:
    """A number that logs while it is logged."""

    def __float__(self) -> float:
        run.log({"within": 1.0}, step)
        return 4.0


class RaisingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class RaisingDict(dict[str, Any]):
    """A dict whose methods raise; what it holds is there."""

    def _fail(self, *_: object) -> NoReturn:
        raise RuntimeError("mine")

    values = items = keys = __iter__ = __getitem__ = _fail


def endless_dict() -> dict[str, Any]:
    holds_itself: dict[str, Any] = {"x": 1}
    holds_itself["again"] = holds_itself
    return holds_itself


def deep_dict(depth: int) -> Any:
    return {"a": deep_dict(depth - 1)} if depth else 1


def deep_list(depth: int) -> list[Any]:
    return [deep_list(depth - 1), 1] if depth else [1]


def holding(value: object) -> Any:
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def masked_array() -> Any:
    return np.ma.array([1.0, 2.0, 9.0], mask=[False, False, True])


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


NOTHING = None
A_HISTOGRAM = "histogram"
# By name: what makes the value, and what is stored of it.
VALUES: dict[str, tuple[Callable[[], Any], Any]] = {
    # of Python itself
    "None": (lambda: None, NOTHING),
    "bool": (lambda: True, 1.0),
    "bytes": (lambda: b"\xff\x00", NOTHING),
    "bytearray": (lambda: bytearray(3), NOTHING),
    "object": (object, NOTHING),
    "class": (lambda: dict, NOTHING),
    "function": (lambda: len, NOTHING),
    "module": (lambda: math, NOTHING),
    "generator": (lambda: (i for i in range(3)), NOTHING),
    "endless generator": (itertools.count, NOTHING),
    "exception": (lambda: ValueError("x"), NOTHING),
    "2**70": (lambda: 2**70, float(2**70)),
    "-(2**63)": (lambda: -(2**63), float(-(2**63))),
    "10**400": (lambda: 10**400, NOTHING),
    "nan": (lambda: math.nan, "nan"),
    "inf": (lambda: math.inf, math.inf),
    "-inf": (lambda: -math.inf, -math.inf),
    "-0.0": (lambda: -0.0, 0.0),
    "subnormal": (lambda: 5e-324, 5e-324),
    "decimal": (lambda: decimal.Decimal("0.1"), 0.1),
    "signalling nan": (lambda: decimal.Decimal("sNaN"), NOTHING),
    "fraction": (lambda: fractions.Fraction(1, 4), 0.25),
    "complex": (lambda: 1 + 2j, NOTHING),
    "enum": (lambda: Color.RED, "red"),
    "int enum": (lambda: Level.HIGH, 3.0),
    "text": (lambda: "héllo", "héllo"),
    "lone surrogate": (lambda: "a\ud800b", "a\ufffdb"),
    "nul": (lambda: "a\0b", "a\0b"),
    "10 MB of text": (lambda: "é" * 5_000_000, "é" * 32_768),
    "datetime": (lambda: datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    "timedelta": (lambda: datetime.timedelta(minutes=1), 60.0),
    "list": (lambda: [1, 2, 3], A_HISTOGRAM),
    "list of one": (lambda: [4], 4.0),
    "empty list": (list, NOTHING),
    "list of text": (lambda: ["a", "b"], NOTHING),
    "list of everything": (lambda: [1, None, "a", {}, b""], NOTHING),
    "deep list": (lambda: deep_list(500), NOTHING),
    "empty dict": (dict, NOTHING),
    "holds itself": (endless_dict, NOTHING),
    "deep dict": (lambda: deep_dict(500), NOTHING),
    "50,000 values": (lambda: {str(i): i for i in range(50_000)}, NOTHING),
    "mock": (unittest.mock.MagicMock, 1.0),
    # whose methods are against us
    "raises": (Raises, NOTHING),
    "raises silently": (RaisesSilently, NOTHING),
    "no float": (NoFloat, NOTHING),
    "endless": (Endless, NOTHING),
    "logs itself": (LogsItself, 4.0),
    "raising mapping": (RaisingMapping, NOTHING),
    "list that raises": (lambda: [1, Raises()], NOTHING),
    # of numpy and pandas
    "numpy 0-d": (lambda: np.array(7), 7.0),
    "numpy float16": (lambda: np.float16(1.5), 1.5),
    "numpy uint64": (lambda: np.uint64(2**63), float(2**63)),
    "numpy longdouble": (lambda: np.longdouble("1e4000"), math.inf),
    "numpy text": (lambda: np.str_("a"), "a"),
    "numpy bytes": (lambda: np.bytes_(b"a"), NOTHING),
    "numpy datetime": (lambda: np.datetime64("2026-01-02"), "2026-01-02"),
    "numpy NaT": (lambda: np.datetime64("NaT"), NOTHING),
    "numpy timedelta": (lambda: np.timedelta64(3, "s"), NOTHING),
    "numpy record": (lambda: np.zeros(2, dtype=[("a", "f8")]), NOTHING),
    "numpy objects": (lambda: np.array([object(), 1], dtype=object), NOTHING),
    "numpy 0-d object": (lambda: holding(Raises()), NOTHING),
    "numpy array": (lambda: frozen(np.arange(6.0).reshape(2, 3)), A_HISTOGRAM),
    "numpy empty": (lambda: np.array([]), NOTHING),
    "masked array": (masked_array, A_HISTOGRAM),
    "pandas NaT": (lambda: pd.NaT, NOTHING),
    "pandas NA": (lambda: pd.NA, NOTHING),
    "pandas timestamp": (lambda: pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
    "pandas timedelta": (lambda: pd.Timedelta(seconds=3), 3.0),
    "pandas series": (lambda: pd.Series([1, 2, 3]), A_HISTOGRAM),
    "pandas category": (lambda: pd.Series(["a", "b"], dtype="category"), NOTHING),
    "pandas frame": (lambda: pd.DataFrame({"a": ["x"], "b": [1]}), NOTHING),
}


def tensors() -> dict[str, tuple[Callable[[], Any], Any]]:
    """As `VALUES`, of torch."""
    import warnings

    import torch

    warnings.filterwarnings("ignore", module="torch|__main__")  # its own words on beta and deprecated layouts
    return {
        # Where there may be tensors, log() asks no object of a library for its `__float__`.
        "numpy complex": (lambda: np.complex64(1 + 2j), NOTHING),
        "masked": (lambda: np.ma.masked, NOTHING),
        "bf16": (lambda: torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        "gradient": (lambda: torch.tensor(1.5, requires_grad=True) * 2, 3.0),
        "parameter": (lambda: torch.nn.Parameter(torch.ones(3)), A_HISTOGRAM),
        "0-d bool": (lambda: torch.tensor(True), 1.0),
        "float8": (lambda: torch.ones(2).to(torch.float8_e4m3fn), A_HISTOGRAM),
        "complex tensor": (lambda: torch.tensor(1j), NOTHING),
        "empty tensor": (lambda: torch.empty(0), NOTHING),
        "meta": (lambda: torch.empty((), device="meta"), NOTHING),
        "sparse": (lambda: torch.tensor([[0.0, 2.0]]).to_sparse(), A_HISTOGRAM),
        "csr": (lambda: torch.tensor([[0.0, 2.0]]).to_sparse_csr(), A_HISTOGRAM),
        "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), NOTHING),
        "quantized": (lambda: torch.quantize_per_tensor(torch.arange(3.0), 1.0, 0, torch.quint8), A_HISTOGRAM),
        "inference": (in_inference_mode, 1.0),
        "fake": (fake_tensor, NOTHING),
        "module": (lambda: torch.nn.Linear(1, 1), NOTHING),
        "state dict": (lambda: torch.nn.Linear(1, 1).state_dict(), NOTHING),
        "size": (lambda: torch.Size([1, 2]), A_HISTOGRAM),
        "dtype": (lambda: torch.float32, NOTHING),
    }


def in_inference_mode() -> Any:
    import torch

    with torch.inference_mode():
        return torch.ones(())


def fake_tensor() -> Any:
    """As of torch.compile: it has a shape, and no data."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(())


# By name: what makes the key, and the name that its value is stored under.
KEYS: dict[str, tuple[Callable[[], Any], str | None]] = {
    "int": (lambda: 1, "1"),
    "tuple": (lambda: (1, "a"), "(1, 'a')"),
    "None": (lambda: None, "None"),
    "bytes": (lambda: b"k\xff", "k\ufffd"),
    "float": (lambda: math.nan, "nan"),
    "enum": (lambda: Color.RED, "Color.RED"),
    "frozen set": (lambda: frozenset([1]), "frozenset({1})"),
    "lone surrogate": (lambda: "k\udcff", "k\ufffd"),
    "10 kB": (lambda: "k" * 10_000, "k" * 1024),
    "with a slash": (lambda: "a/b/", "a/b/"),
    "with a line": (lambda: "a\nb\0", "a\nb\0"),
    "empty": (lambda: "", NOTHING),
    "raises": (Raises, NOTHING),
}

# What is no dict; what can be stored of it is told by name.
DATA: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "list": lambda: [1, 2],
    "pairs": lambda: [("a", 1)],
    "text": lambda: "loss",
    "bytes": lambda: b"loss",
    "number": lambda: 0.5,
    "set": lambda: {"a"},
    "generator": lambda: (i for i in range(3)),
    "endless generator": itertools.count,
    "class": lambda: dict,
    "object": object,
    "raises": Raises,
    "raising mapping": RaisingMapping,
    "array": lambda: np.arange(3),
    "frame": lambda: pd.DataFrame({"a": ["x"], "b": [1]}),
    "mock": unittest.mock.MagicMock,
}

# Mappings of all kinds, whose `odd` is 5.
MAPPINGS: dict[str, Callable[[Any], Any]] = {
    "ordered": collections.OrderedDict,
    "default": lambda pairs: collections.defaultdict(int, pairs),
    "user": collections.UserDict,
    "chain": lambda pairs: collections.ChainMap(dict(pairs)),
    "proxy": lambda pairs: types.MappingProxyType(dict(pairs)),
    "series": lambda pairs: dict(pd.Series(dict(pairs))),
    "raising dict": RaisingDict,
}

# What is no whole number gets the next step.
STEPS: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.int64(step),
    "numpy 0-d": lambda: np.array(step),
    "whole float": lambda: float(step),
    "decimal": lambda: decimal.Decimal(step),
    "text": lambda: "step",
    "None": lambda: None,
    "nan": lambda: math.nan,
    "fraction": lambda: step + 0.5,
    "raises": Raises,
    "list": lambda: [step],
}


def tell(name: str, expected: Any) -> None:
    print(json.dumps([step, name, expected]))


run = allranks.init(project="odd")
step = 0
# From here on these three names go the short way, as they do in a training.
run.log({"before": 0, "odd": 0.0, "after": 0}, step)
tell("plain", 0.0)
values = VALUES | (tensors() if "tensors" in sys.argv else {})
for name, (make, expected) in values.items():
    step += 1
    run.log({"before": step, "odd": make(), "after": step}, step)
    tell(f"value: {name}", expected)
for name, (make_key, stored) in KEYS.items():
    step += 1
    run.log({"before": step, make_key(): 6.0, "after": step}, step)
    tell(f"key: {name}", None if stored is None else {stored: 6.0})
for name, make_data in DATA.items():
    step += 1
    run.log(make_data(), step)
    run.log({"before": step, "odd": 1.0, "after": step}, step)
    tell(f"data: {name}", 1.0)
for name, make_mapping in MAPPINGS.items():
    step += 1
    run.log(make_mapping([("before", step), ("odd", 5.0), ("after", step)]), step)
    tell(f"mapping: {name}", 5.0)
for name, make_step in STEPS.items():
    step += 1
    run.log({"before": step, "odd": 2.0, "after": step}, make_step())
    tell(f"step: {name}", 2.0)
