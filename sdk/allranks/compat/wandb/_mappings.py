"""`wandb.config` and `wandb.summary`, over those of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from allranks import _config
from allranks.compat.wandb.errors import UsageError

_PLAIN = (float, int, bool, str)


class Config(_config.Config):
    """The run's configuration: as allranks', with what scripts call on wandb's."""

    def update(  # type: ignore[override]  # as wandb's
        self, values: Any = (), allow_val_change: bool | None = None, **more: Any
    ) -> None:
        """Sets several entries at once; ValueError where one has another value already, unless that is allowed."""
        super().update(values, allow_val_change=bool(allow_val_change), **more)

    def setdefaults(self, values: Any) -> None:
        """Sets those entries that are not there yet."""
        self.update({key: value for key, value in _config.entries(values).items() if str(key) not in self})

    def as_dict(self) -> dict[str, Any]:
        """A copy as a dict."""
        return dict(self)

    def persist(self) -> None:
        """Nothing to do: each change is stored when it is made."""


class Summary(_config.Summary):
    """What was set by hand, else what was logged last under a name (plain numbers and text)."""

    _logged: dict[str, Any]

    def __init__(self, send: _config.Send | None = None) -> None:
        super().__init__(send)
        object.__setattr__(self, "_logged", {})

    def remember(self, data: Mapping[str, Any]) -> None:
        """Takes note of what was logged. Tensors are read when somebody asks: reading one may wait for its device."""
        for key, value in data.items():
            if type(value) in _PLAIN:
                self._logged[key] = value
            elif getattr(value, "shape", None) == ():
                self._logged[key] = value.detach() if hasattr(value, "detach") else value

    def __getitem__(self, key: str) -> Any:
        if key in self._values:
            return self._values[key]
        value = self._logged[key]
        return value if type(value) in _PLAIN else value.item()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._logged:
            return self[name]
        return super().__getattr__(name)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._logged, **self._values})

    def __len__(self) -> int:
        return len({**self._logged, **self._values})

    def __setstate__(self, values: dict[str, Any]) -> None:
        super().__setstate__(values)
        object.__setattr__(self, "_logged", {})


class BeforeInit:
    """`config` and `summary` before there is a run: whatever is done with them says what is missing."""

    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse(f".{name}")

    def __setattr__(self, name: str, _value: Any) -> None:
        self._refuse(f".{name}")

    def __getitem__(self, key: str) -> Any:
        self._refuse(f"[{key!r}]")

    def __setitem__(self, key: str, _value: Any) -> None:
        self._refuse(f"[{key!r}]")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(f"wandb.{self._name}{what}: call wandb.init() first")
