"""wandb's interface over allranks: a script written for wandb runs with one changed import.

    import allranks.compat.wandb as wandb

What is here, what is accepted and what is left out is a table: `_table`, and docs/migrating.md. Nothing of wandb is
needed or imported.
"""

# ruff: noqa: ARG001  (wandb's arguments that mean nothing here)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from allranks._warnings import say, warn_once
from allranks.compat.wandb import errors, plot, util
from allranks.compat.wandb._alerts import AlertLevel
from allranks.compat.wandb._artifact import Artifact
from allranks.compat.wandb._current import current, finish, init, of_run, setup
from allranks.compat.wandb._left_out import LeftOut, Table
from allranks.compat.wandb._mappings import BeforeInit, Config, Summary
from allranks.compat.wandb._run import Run
from allranks.compat.wandb._settings import Settings
from allranks.compat.wandb._table import FUNCTIONS, Fate, names_of
from allranks.compat.wandb.errors import CommError, Error, UnsupportedError, UsageError
from allranks.values import Histogram as _Histogram

if TYPE_CHECKING:
    # Of the current run; `run` is None where there is none.
    run: Run | None
    config: Config
    summary: Summary

# The one whose interface this is: scripts compare it.
__version__ = "0.31.0"

log = of_run(Run.log)
define_metric = of_run(Run.define_metric)
alert = of_run(Run.alert)
save = of_run(Run.save)
restore = of_run(Run.restore)
watch = of_run(Run.watch)
unwatch = of_run(Run.unwatch)
log_artifact = of_run(Run.log_artifact)
log_model = of_run(Run.log_model)
log_code = of_run(Run.log_code)
link_model = of_run(Run.link_model)
use_artifact = of_run(Run.use_artifact)
use_model = of_run(Run.use_model)
mark_preempting = of_run(Run.mark_preempting)

_LEFT_OUT = names_of(FUNCTIONS, Fate.LEFT_OUT)
_REFUSED = names_of(FUNCTIONS, Fate.REFUSED)


class Histogram(_Histogram):
    """A distribution.

    Args:
        sequence: numbers to count into `num_bins` bins.
        np_histogram: counts and edges, as `numpy.histogram` returns them.
    """

    def __init__(self, sequence: Any = None, np_histogram: Any = None, num_bins: int = 64) -> None:
        super().__init__(sequence if np_histogram is None else tuple(np_histogram), bins=num_bins)

    @property
    def histogram(self) -> list[float]:
        """The counts."""
        return list(self.body.get("counts", ()))

    @property
    def bins(self) -> list[float]:
        """The edges, one more than counts."""
        return list(self.body.get("bins", ()))


def login(*_: Any, **__: Any) -> bool:
    """True: there is nothing to log in to."""
    return True


def require(*_: Any, **__: Any) -> None:
    """Nothing to choose."""


def ensure_configured() -> None:
    """Nothing to set up."""


def termsetup(*_: Any, **__: Any) -> None:
    """Nothing to set up."""


def teardown(exit_code: int | None = None) -> None:
    """`finish`."""
    finish(exit_code)


def join(exit_code: int | None = None) -> None:
    """`finish`."""
    finish(exit_code)


def termlog(string: str = "", newline: bool = True, repeat: bool = True, prefix: bool = True) -> None:
    """Prints a line to stderr; with repeat=False only the first time."""
    if repeat:
        say(string)
    else:
        warn_once(f"wandb term {string}", string)


termwarn = termerror = termlog


def _refused(name: str) -> NoReturn:
    raise UnsupportedError(f"wandb.{name} is not there in allranks: {_REFUSED[name]}")


class Api:
    """Refused: says what to use in its place."""

    def __init__(self, *_: Any, **__: Any) -> None:
        _refused("Api")


def sweep(*_: Any, **__: Any) -> NoReturn:
    """Refused."""
    _refused("sweep")


def agent(*_: Any, **__: Any) -> NoReturn:
    """Refused."""
    _refused("agent")


def controller(*_: Any, **__: Any) -> NoReturn:
    """Refused."""
    _refused("controller")


def __getattr__(name: str) -> Any:
    """What depends on the current run, and the classes of what is left out."""
    if name == "run":
        return current()
    if name in ("config", "summary"):
        now = current()
        return BeforeInit(name) if now is None else getattr(now, name)
    if name in _LEFT_OUT:
        # Kept, so that a class stays the same and its instances pickle.
        made = globals()[name] = type(name, (LeftOut,), {"__module__": __name__})
        return made
    raise AttributeError(f"allranks.compat.wandb has no {name!r}: docs/migrating.md says what there is")


__all__ = [
    "AlertLevel",
    "Api",
    "Artifact",
    "CommError",
    "Config",
    "Error",
    "Histogram",
    "Run",
    "Settings",
    "Table",
    "UsageError",
    "agent",
    "alert",
    "config",
    "controller",
    "define_metric",
    "ensure_configured",
    "errors",
    "finish",
    "init",
    "join",
    "link_model",
    "log",
    "log_artifact",
    "log_code",
    "log_model",
    "login",
    "mark_preempting",
    "plot",
    "require",
    "restore",
    "run",
    "save",
    "setup",
    "summary",
    "sweep",
    "teardown",
    "termerror",
    "termlog",
    "termsetup",
    "termwarn",
    "unwatch",
    "use_artifact",
    "use_model",
    "util",
    "watch",
]
