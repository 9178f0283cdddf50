"""`run.config` and `run.summary`: mappings whose changes are events."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, cast

_MAX_DEPTH = 16
_MAX_TEXT = 64 * 1024

Send = Callable[[dict[str, Any]], None]


class _Recorded(MutableMapping[str, Any]):
    """A mapping that tells `send` of each change; keys are also attributes."""

    _values: dict[str, Any]
    _send: Send | None

    def __init__(self, send: Send | None = None) -> None:
        # Past __setattr__, which would take these for keys.
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_send", send)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._record({str(key): plain(value)})

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        # Dunder names are looked up by pickle and copy before there is a dict: they must miss in the usual way.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} here; there are {sorted(self._values)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self._values!r})"

    def __getstate__(self) -> dict[str, Any]:
        return dict(self._values)

    def __setstate__(self, values: dict[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_send", None)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Sets entries that are stored already."""
        self._values.update(values)

    def _record(self, changes: dict[str, Any]) -> None:
        self._values.update(changes)
        if changes and self._send is not None:
            self._send(changes)


class Config(_Recorded):
    """The run's configuration: what it was started with, and what it chose by itself.

    A value that is already set is kept unless `allow_val_change` is given to `update`: a configuration that changes
    under way is mostly a mistake. Assigning to one key or attribute always changes it.
    """

    def update(  # type: ignore[override]  # as known from other trackers
        self, values: Any = (), *, allow_val_change: bool = False, **more: Any
    ) -> None:
        """Sets several entries at once.

        Args:
            values: a mapping, or an object with attributes such as `argparse.Namespace`.
            allow_val_change: also change entries that have another value already.

        Raises:
            ValueError: an entry would change, and `allow_val_change` is false; nothing is changed then.
        """
        changes = {str(key): plain(value) for key, value in {**entries(values), **more}.items()}
        changed = [key for key, value in changes.items() if key in self._values and self._values[key] != value]
        if changed and not allow_val_change:
            key = changed[0]
            raise ValueError(
                f"config {key!r} is {self._values[key]!r} and would become {changes[key]!r}: "
                "pass allow_val_change=True if that is meant"
            )
        self._record(changes)


class Summary(_Recorded):
    """What the run amounts to: entries set here win over those that are taken from its metrics."""

    def update(self, values: Any = (), **more: Any) -> None:  # type: ignore[override]  # as Config's
        """Sets several entries at once."""
        self._record({str(key): plain(value) for key, value in {**entries(values), **more}.items()})


def entries(values: Any) -> dict[Any, Any]:
    """A mapping's items, an object's attributes (argparse.Namespace, dataclasses), or pairs, as a dict."""
    if values is None:
        return {}
    if isinstance(values, Mapping):
        return dict(cast("Iterable[tuple[Any, Any]]", values))
    if hasattr(values, "__dict__") and not isinstance(values, type):
        return {name: value for name, value in vars(values).items() if not name.startswith("_")}
    if dataclasses.is_dataclass(values) and not isinstance(values, type):  # with slots
        return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return dict(cast("Iterable[tuple[Any, Any]]", values))


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON knows it: None, bool, int, float, str, list and dict; anything else by its text.

    Never raises: a configuration holds whatever a program was started with.
    """
    try:
        return _plain(value, depth)
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | str):
        return value if not isinstance(value, str) else str(value)[:_MAX_TEXT]
    if isinstance(value, int):
        number = int(value)
        return number if -(2**63) <= number < 2**63 else str(number)
    if isinstance(value, float):
        number_ = float(value)
        return number_ if math.isfinite(number_) else str(number_)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(key): plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(item, depth + 1) for item in value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:  # a scalar of numpy or torch
        return plain(item(), _MAX_DEPTH)
    return str(value)[:_MAX_TEXT]
