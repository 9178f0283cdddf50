"""Whatever somebody logs is stored sensibly or named in a problem, and nothing raises."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import itertools
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgpack
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import allranks
from allranks.histograms import BINS, MAX_ELEMENTS
from allranks.values import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    MAX_TEXT_BYTES,
    MAX_VALUES,
    Flat,
    Histogram,
    flatten,
)


class Color(enum.Enum):
    RED = "red"
    BOX = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Raises:
    """An object all of whose methods raise."""

    def _fail(self, *_: object) -> NoReturn:
        raise RuntimeError("mine")

    __str__ = __repr__ = __float__ = __len__ = __iter__ = __bool__ = __eq__ = _fail
    __hash__ = object.__hash__


class RaisesOddly(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class RaisesErrorWithoutText:
    def __float__(self) -> float:
        raise RaisesOddly


class RaisingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class EndlessMapping(RaisingMapping):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("mine")


class Number(float):
    def __float__(self) -> float:
        raise RuntimeError("mine")


def one(value: object) -> float | str | dict[str, Any]:
    """What this one value is stored as; it must be stored, and without a problem."""
    flat = flatten({"key": value})
    assert flat.problems == []
    return (flat.numbers | flat.others)["key"]


def problem(value: object) -> str:
    """Why this value is not stored; the value beside it must be."""
    flat = flatten({"before": 1, "key": value, "after": 2})
    assert flat.numbers == {"before": 1.0, "after": 2.0}
    assert flat.others == {}
    ((name, reason),) = flat.problems
    assert name.startswith("key")
    return reason


SCALARS: dict[str, tuple[object, float]] = {
    "float": (1.5, 1.5),
    "int": (3, 3.0),
    "bool": (True, 1.0),
    "2**53+1": (2**53 + 1, float(2**53)),
    "2**70": (2**70, float(2**70)),
    "inf": (math.inf, math.inf),
    "decimal": (decimal.Decimal("0.1"), 0.1),
    "fraction": (fractions.Fraction(1, 4), 0.25),
    "int enum": (Level.HIGH, 3.0),
    "float subclass": (Number(2.5), 2.5),
    "timedelta": (datetime.timedelta(minutes=1), 60.0),
    "list of one": ([4], 4.0),
    "nested list of one": ([[4]], 4.0),
    "numpy float64": (np.float64(1.5), 1.5),
    "numpy float16": (np.float16(1.5), 1.5),
    "numpy longdouble": (np.longdouble(1.5), 1.5),
    "numpy uint64": (np.uint64(2**63), float(2**63)),
    "numpy bool": (np.bool_(True), 1.0),
    "numpy 0-d": (np.array(7), 7.0),
    "numpy of one": (np.array([[7]]), 7.0),
    "numpy 0-d object": (np.array(decimal.Decimal(2), dtype=object), 2.0),
    "torch 0-d": (torch.tensor(1.5), 1.5),
    "torch of one": (torch.tensor([[2]]), 2.0),
    "torch bf16": (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
    "torch bool": (torch.tensor(True), 1.0),
    "torch that requires grad": (torch.tensor(1.5, requires_grad=True) * 2, 3.0),
    "torch parameter": (torch.nn.Parameter(torch.tensor(1.5)), 1.5),
    "torch sparse": (torch.tensor([2.0]).to_sparse(), 2.0),
    "pandas timedelta": (pd.Timedelta(seconds=3), 3.0),
    "pandas series of one": (pd.Series([3]), 3.0),
}


@pytest.mark.parametrize("row", SCALARS)
def test_scalars_become_doubles(row: str) -> None:
    value, expected = SCALARS[row]
    stored = one(value)
    assert type(stored) is float
    assert stored == expected


TEXTS: dict[str, tuple[object, str]] = {
    "str": ("héllo", "héllo"),
    "str subclass": (Text("x"), "x"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "enum": (Color.RED, "red"),
    "enum of something else": (Color.BOX, "BOX"),
    "datetime": (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    "date": (datetime.date(2026, 1, 2), "2026-01-02"),
    "numpy str": (np.str_("a"), "a"),
    "numpy datetime": (np.datetime64("2026-01-02"), "2026-01-02"),
    "pandas timestamp": (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
}


@pytest.mark.parametrize("row", TEXTS)
def test_text_and_times_become_text(row: str) -> None:
    value, expected = TEXTS[row]
    stored = one(value)
    assert type(stored) is str
    assert stored == expected


REFUSED: dict[str, tuple[object, str]] = {
    "None": (None, "None"),
    "10**400": (10**400, "double"),
    "complex": (1j, "complex"),
    "bytes": (b"abc", "bytes"),
    "object": (object(), "object"),
    "function": (len, "builtin"),
    "generator": ((i for i in range(3)), "generator"),
    "signalling nan": (decimal.Decimal("sNaN"), "NaN"),
    "raises": (Raises(), "mine"),
    "raises an error whose text raises": (RaisesErrorWithoutText(), "RaisesOddly"),
    "raising mapping": (RaisingMapping(), "KeyError"),
    "empty list": ([], "empty"),
    "list of empty lists": ([[], []], "empty"),
    "list of text": (["a", "b"], "text"),
    "list of None": ([1, None], "None"),
    "list of dicts": ([{}, {}], "dicts"),
    "list of complex": ([1j, 2j], "complex"),
    "list of nan": ([math.nan, math.inf], "finite"),
    "list with a huge int": ([1, 10**400], "double"),
    "numpy empty": (np.array([]), "empty"),
    "numpy complex": (np.array([1j, 2j]), "complex"),
    "numpy bytes": (np.array([b"a"]), "not stored"),
    "numpy texts": (np.array(["a", "b"]), "not stored"),
    "numpy records": (np.zeros(2, dtype=[("a", "f8")]), "not stored"),
    "numpy timedelta": (np.timedelta64(3, "s"), "not stored"),
    "numpy NaT": (np.datetime64("NaT"), "NaT"),
    "numpy object": (np.array([object(), 1], dtype=object), "object"),
    "torch empty": (torch.empty(0), "empty"),
    "torch meta": (torch.empty(3, device="meta"), "meta"),
    "torch complex": (torch.tensor([1j, 2j]), "complex"),
    "pandas NaT": (pd.NaT, "NaT"),
    "pandas NA": (pd.NA, "NA"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_cannot_be_stored_is_named_and_costs_nothing_beside_it(row: str) -> None:
    value, word = REFUSED[row]
    assert word in problem(value)


def test_a_recursive_list_ends() -> None:
    nested: list[Any] = [1]
    nested.append(nested)
    assert "deep" in problem(nested)


NUMPY_DTYPES = "?bBhHiIlLqQefdg"
TORCH_DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.uint8,
    torch.int8,
    torch.int64,
    torch.bool,
)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_a_numpy_array_of_any_dtype_becomes_a_histogram(dtype: str) -> None:
    stored = one(np.array([[0, 1], [1, 1]], dtype=dtype))
    assert isinstance(stored, dict)
    assert (stored["count"], stored["min"], stored["max"], stored["mean"]) == (4, 0.0, 1.0, 0.75)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_a_torch_tensor_of_any_dtype_becomes_a_histogram(dtype: torch.dtype) -> None:
    stored = one(torch.tensor([[0.0, 1.0], [1.0, 1.0]]).to(dtype))
    assert isinstance(stored, dict)
    assert (stored["count"], stored["min"], stored["max"], stored["mean"]) == (4, 0.0, 1.0, 0.75)


MANY: dict[str, object] = {
    "list": [0, 1, 2],
    "tuple": (0, 1, 2),
    "set": {0, 1, 2},
    "range": range(3),
    "deque": collections.deque([0, 1, 2]),
    "list of lists": [[0, 1], [2]],
    "list of numpy scalars": [np.float32(0), np.int8(1), 2],
    "list of tensors": [torch.tensor(0), torch.tensor(1), torch.tensor([2])],
    "not contiguous": np.arange(6)[::2] // 2,
    "masked": np.ma.array([0, 1, 2, 99], mask=[False, False, False, True]),
    "objects": np.array([0, decimal.Decimal(1), 2.0], dtype=object),
    "requires grad": torch.arange(3.0, requires_grad=True),
    "sparse": torch.tensor([[0.0, 1.0, 2.0]]).to_sparse(),
    "series": pd.Series([0, 1, 2]),
    "index": pd.Index([0, 1, 2]),
}


@pytest.mark.parametrize("row", MANY)
def test_many_numbers_become_a_histogram(row: str) -> None:
    stored = one(MANY[row])
    assert isinstance(stored, dict)
    assert stored["_type"] == "histogram"
    assert (len(stored["bins"]), len(stored["counts"])) == (BINS + 1, BINS)
    assert [place for place, count in enumerate(stored["counts"]) if count] == [0, 32, 63]
    figures = [stored[name] for name in ("count", "min", "max", "mean", "std")]
    assert figures == pytest.approx([3, 0.0, 2.0, 1.0, math.sqrt(2 / 3)])
    assert "sample_of" not in stored
    assert msgpack.unpackb(msgpack.packb(stored)) == stored


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own words on beta and deprecated layouts
def test_a_tensor_of_another_layout_becomes_a_histogram() -> None:
    tensors = [
        torch.tensor([[0.0, 1.0, 2.0]]).to_sparse_csr(),
        torch.quantize_per_tensor(torch.arange(3.0), 1.0, 0, torch.quint8),
    ]
    for tensor in tensors:
        stored = one(tensor)
        assert isinstance(stored, dict)
        assert (stored["count"], stored["max"]) == (3, 2.0)


def test_the_widest_range_of_doubles_is_counted() -> None:
    most = sys.float_info.max
    stored = one([-most, 0.0, most])
    assert isinstance(stored, dict)
    assert [place for place, count in enumerate(stored["counts"]) if count] == [0, 32, 63]
    assert (stored["bins"][0], stored["bins"][32], stored["bins"][64]) == (-most, 0.0, most)


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    stored = one([0, 1, math.nan, math.inf, -math.inf])
    assert isinstance(stored, dict)
    assert (stored["count"], stored["nonfinite"], stored["max"]) == (2, 3, 1.0)


def test_a_large_array_is_sampled_and_says_so() -> None:
    size = 2 * MAX_ELEMENTS + 1
    for value in (np.zeros(size), torch.zeros(size, dtype=torch.int8), range(size)):
        stored = one(value)
        assert isinstance(stored, dict)
        assert stored["sample_of"] == size
        assert stored["count"] == sum(stored["counts"]) <= MAX_ELEMENTS


def test_lists_within_a_list_are_bounded_too() -> None:
    assert "lists within lists" in problem([range(MAX_ELEMENTS), range(MAX_ELEMENTS)])


FINITE = st.floats(allow_nan=False, allow_infinity=False)


def check_histogram(stored: dict[str, Any], values: list[float]) -> None:
    """What must hold of every histogram, whatever the values are."""
    assert sum(stored["counts"]) == stored["count"] == len(values)
    assert (stored["min"], stored["max"]) == (min(values), max(values))
    assert stored["min"] <= stored["mean"] <= stored["max"]
    assert stored["bins"] == sorted(stored["bins"])
    assert all(map(math.isfinite, stored["bins"]))
    assert stored["bins"][0] <= stored["min"]
    assert stored["bins"][-1] >= stored["max"]
    assert 0 <= stored["std"] < math.inf


@given(st.lists(FINITE, min_size=2, max_size=50))
def test_no_value_is_lost_from_a_histogram(values: list[float]) -> None:
    stored = one(values)
    assert isinstance(stored, dict)
    check_histogram(stored, values)


@given(st.lists(FINITE, min_size=2, max_size=50))
def test_without_numpy_the_histogram_holds_the_same(values: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "numpy")
        stored = one(values)
    assert isinstance(stored, dict)
    check_histogram(stored, values)


def test_with_and_without_numpy_the_bins_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [math.sin(number) for number in range(1000)]
    fast = one(values)
    monkeypatch.delitem(sys.modules, "numpy")
    slow = one(values)
    assert isinstance(fast, dict)
    assert isinstance(slow, dict)
    assert fast["counts"] == slow["counts"]
    assert [fast["mean"], fast["std"]] == pytest.approx([slow["mean"], slow["std"]])


def test_torch_works_without_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None; import torch; del sys.modules['numpy'];"
        "from allranks.values import flatten;"
        "flat = flatten({'a': torch.tensor(1.5), 'b': torch.arange(3)});"
        "assert flat.numbers == {'a': 1.5} and flat.others['b']['count'] == 3, flat;"
        "assert 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- names and dicts -------------------------------------------------------------------------------------------


def test_nested_dicts_are_joined_with_slashes() -> None:
    data = {"train": {"loss": 1, "acc": {"top1": 2}}, "lr": 3}
    assert flatten(data).numbers == {"train/loss": 1.0, "train/acc/top1": 2.0, "lr": 3.0}


def test_names_that_are_not_text_become_text() -> None:
    flat = flatten({1: 1, (2, "a"): 2, None: 3, b"x": 4, "a\ud800": 5, Text("t"): 6})
    assert list(flat.numbers) == ["1", "(2, 'a')", "None", "x", "a\ufffd", "t"]


def test_a_name_whose_text_raises_is_a_problem() -> None:
    flat = flatten({Raises(): 1, "ok": 2})
    assert flat.numbers == {"ok": 2.0}
    assert "Raises" in flat.problems[0][0]


def test_an_empty_name_is_a_problem() -> None:
    assert flatten({"": 1, "ok": 2}) == Flat({"ok": 2.0}, {}, [("", "it is not stored: the name is empty")])


def test_a_name_is_cut_at_its_bytes_and_said_so() -> None:
    flat = flatten({"é" * 1000: 1})
    (name,) = flat.numbers
    assert name == "é" * (MAX_NAME_BYTES // 2)
    assert flat.problems == [(name, "the name is cut after 1,024 bytes")]


def test_a_name_that_comes_twice_keeps_its_last_value() -> None:
    flat = flatten({"a/b": 1, "a": {"b": "text"}})
    assert (flat.numbers, flat.others) == ({}, {"a/b": "text"})
    assert "twice" in flat.problems[0][1]


def test_a_dict_that_holds_itself_ends_and_costs_nothing_beside_it() -> None:
    data: dict[str, Any] = {"x": 1}
    data["me"] = data
    data["y"] = 2
    flat = flatten(data)
    assert flat.numbers == {"x": 1.0, "y": 2.0}
    assert flat.problems == [("me", "it is not stored: the dict holds itself")]


def test_one_dict_in_two_places_is_no_recursion() -> None:
    shared = {"x": 1}
    assert flatten({"a": shared, "b": shared}).numbers == {"a/x": 1.0, "b/x": 1.0}


def test_dicts_nested_too_deep_are_a_problem() -> None:
    data: dict[str, Any] = {"x": 1}
    for _ in range(100_000):
        data = {"d": data}
    flat = flatten({"y": 2, "deep": data})
    assert flat.numbers == {"y": 2.0}
    assert str(MAX_DEPTH) in flat.problems[0][1]
    while "d" in data:  # taken apart from the top: its own destructor would recurse
        data = data["d"]


def test_the_number_of_values_is_bounded() -> None:
    flat = flatten({"many": EndlessMapping(), "late": 1})
    assert len(flat.numbers) == MAX_VALUES
    assert flat.problems == [("many", f"more than {MAX_VALUES:,} values in one call: the rest is left out")]


def test_a_dict_subclass_is_read_as_the_dict_it_is() -> None:
    class Odd(dict[str, int]):
        def items(self) -> NoReturn:
            raise RuntimeError("mine")

    assert flatten(Odd(a=1)).numbers == {"a": 1.0}


@pytest.mark.parametrize("data", [None, 5, "text", [("a", 1)], Raises()])
def test_data_that_is_no_dict_is_a_problem(data: object) -> None:
    flat = flatten(data)
    assert (flat.numbers, flat.others) == ({}, {})
    assert flat.problems[0][0] == "data"


def test_long_text_is_cut_at_its_bytes_and_said_so() -> None:
    flat = flatten({"key": "é" * 5_000_000})
    assert flat.others["key"] == "é" * (MAX_TEXT_BYTES // 2)
    assert "cut" in flat.problems[0][1]


# --- allranks.Histogram ----------------------------------------------------------------------------------------


def test_a_histogram_of_one_value_is_a_histogram() -> None:
    stored = one(allranks.Histogram([5.0], bins=4))
    assert isinstance(stored, dict)
    assert (stored["counts"], stored["bins"][0], stored["bins"][-1]) == ([0, 0, 1, 0], 4.5, 5.5)


def test_a_histogram_holds_its_values_of_when_it_was_made() -> None:
    values = np.array([1.0, 2.0])
    histogram = Histogram(values)
    values[:] = 9
    assert histogram.body["max"] == 2.0


@pytest.mark.parametrize("counts", [np.histogram([0, 1, 1, 4], bins=4), ([1, 2, 0, 1], [0, 1, 2, 3, 4])])
def test_a_histogram_takes_counts_and_edges(counts: tuple[Any, Any]) -> None:
    stored = one(Histogram(counts))
    assert isinstance(stored, dict)
    assert (stored["counts"], stored["bins"]) == ([1, 2, 0, 1], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert (stored["count"], stored["min"], stored["max"], stored["mean"]) == (4, 0.0, 4.0, 1.75)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ("text", "str"),
        (None, "NoneType"),
        ([], "empty"),
        (([1, 2], [1, 2]), "edges"),
        (([1], [2, 1]), "ascend"),
        (([-1], [1, 2]), "negative"),
        (([0], [1, 2]), "0"),
        (([math.nan], [1, 2]), "finite"),
        (Raises(), "holds no numbers"),
    ],
)
def test_a_wrong_histogram_is_told_when_it_is_logged(values: object, word: str) -> None:
    assert word in problem(Histogram(values))


@pytest.mark.parametrize("bins", [0, -1, 5000, True, 2.5, "x"])
def test_a_wrong_number_of_bins_is_told_when_it_is_logged(bins: Any) -> None:
    assert "bins=" in problem(Histogram([1, 2], bins=bins))


# --- anything --------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.datetimes()
    | st.timedeltas()
    | st.sampled_from([Color.RED, 10**400, 2**70, np.float32(1), torch.tensor([1.0, 2.0]), pd.NA])
    | st.integers(0).map(lambda _: Raises()),  # by a function: hypothesis would show it
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner),
    max_leaves=15,
)


@given(st.dictionaries(st.text() | st.integers() | st.binary(), ANYTHING) | ANYTHING)
def test_nothing_raises_and_all_that_is_kept_can_be_sent(data: object) -> None:
    flat = flatten(data)
    assert all(type(value) is float for value in flat.numbers.values())
    assert not flat.numbers.keys() & flat.others.keys()
    for name in (*flat.numbers, *flat.others):
        assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    msgpack.packb([flat.numbers, flat.others])


def test_values_load_neither_numpy_nor_torch() -> None:
    code = "import sys, allranks.values; sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
