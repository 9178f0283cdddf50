"""What is not kept: objects that a script may make and use as it likes, and which do nothing.

The first of each kind says so in one line. `without` takes them out of what is logged, so that the numbers beside
them are stored as always.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from allranks._warnings import warn_once
from allranks.compat.wandb._table import FUNCTIONS, Fate, names_of

_WORDS = names_of(FUNCTIONS, Fate.LEFT_OUT)


class _DoesNothing(type):
    """The class of such classes: their class methods (`Object3D.from_numpy` …) make an object too."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls


class LeftOut(metaclass=_DoesNothing):
    """Takes any arguments; whatever is called of it returns itself."""

    # Whether `without` has anything to look for: few scripts make any, and log() is called often.
    were_made = False

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        LeftOut.were_made = True
        name = type(self).__name__
        say_left_out(name, _WORDS[name.partition(".")[0]])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self


class Table(LeftOut):
    """Rows and columns that a script can add and read; they are not stored."""

    def __init__(
        self,
        columns: Iterable[Any] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if dataframe is not None:
            columns, data = dataframe.columns, dataframe.values.tolist()
        given = data if data is not None else rows
        if hasattr(given, "columns"):
            columns, given = given.columns, given.values.tolist()
        self.columns: list[Any] = list(columns) if columns is not None else ["Input", "Output", "Expected"]
        self.data: list[list[Any]] = [list(row) for row in (given if given is not None else ())]

    def add_data(self, *row: Any) -> None:
        """Adds a row."""
        self.data.append(list(row))

    def add_row(self, *row: Any) -> None:
        """Adds a row."""
        self.add_data(*row)

    def add_column(self, name: Any, data: Iterable[Any], **_: Any) -> None:
        """Adds a column, a value for each row."""
        values = list(data)
        if not self.columns or not self.data:
            self.data = [[] for _ in values]
        self.columns.append(name)
        for row, value in zip(self.data, values, strict=False):
            row.append(value)

    def get_column(self, name: Any, **_: Any) -> list[Any]:
        """The values of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.data]

    def iterrows(self) -> Iterable[tuple[int, list[Any]]]:
        """Numbers and rows."""
        return enumerate(self.data)


def say_left_out(name: str, words: str) -> None:
    """Says once that `wandb.NAME` does nothing here, and why or what else there is."""
    warn_once(f"wandb:{name}", f"wandb.{name} is left out: {words}")


def without(data: Any) -> Any:
    """`data` less what is left out of it; nested dicts too."""
    if not isinstance(data, Mapping):
        return data
    return {key: without(value) for key, value in data.items() if not _is_left_out(value)}


def _is_left_out(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(item, LeftOut) for item in value)
    return isinstance(value, LeftOut)
