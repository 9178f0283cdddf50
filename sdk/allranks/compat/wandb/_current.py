"""The run that `wandb.init` began in this process, and the functions that act on it."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import allranks
from allranks._config import entries
from allranks._notebooks import is_notebook
from allranks._warnings import warn_once
from allranks.compat.wandb._run import Run
from allranks.compat.wandb._settings import Settings, choose, chosen_config

P = ParamSpec("P")
T = TypeVar("T")

_FINISH_FIRST = (True, "finish_previous", "create_new")
# Of what was chosen, that which `allranks.init` takes.
_OURS = ("project", "group", "name", "id", "notes", "dir", "mode", "console", "resume")

_run: Run | None = None
# What `setup` was told.
_defaults: dict[str, Any] = {}


def init(
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002
    id: str | None = None,  # noqa: A002
    name: str | None = None,
    notes: str | None = None,
    tags: Iterable[str] | None = None,
    config: Any = None,
    config_exclude_keys: Iterable[str] | None = None,
    config_include_keys: Iterable[str] | None = None,
    allow_val_change: bool | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    force: bool | None = None,
    reinit: bool | str | None = None,
    resume: bool | str | None = None,
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,
    tensorboard: bool | None = None,
    sync_tensorboard: bool | None = None,
    monitor_gym: bool | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    anonymous: Any = None,
) -> Run:
    """Begins a run, or joins that of this launch; see `allranks.init`, and docs/migrating.md for each argument.

    Returns:
        The run; the current one where there is one, unless `reinit` says to finish it first (as it does by itself in
        a notebook).
    """
    global _run
    arguments = {name: value for name, value in locals().items() if name not in ("config", "settings")}
    chosen = choose(arguments, {**_defaults, **entries(settings)}, os.environ)
    if _run is not None and _ends_for(_run, chosen.get("reinit")):
        _run.finish()
    run = allranks.init(
        config=chosen_config(config, config_include_keys, config_exclude_keys),
        tags=(*chosen.get("tags", ()), *((chosen["job_type"],) if "job_type" in chosen else ())),
        **{name: chosen[name] for name in _OURS if name in chosen},
    )
    if _run is None or not _run.is_over(run):
        _run = Run(run, chosen)
    else:
        _run.config.restore(run.config)
    return _run


def setup(settings: Settings | Mapping[str, Any] | None = None) -> None:
    """Keeps settings for the runs that `init` begins from now on."""
    _defaults.update(entries(settings))


def current() -> Run | None:
    """The run that `init` began; None before it, and once it is finished."""
    return _run if _run is not None and not _run.is_finished else None


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """Ends the run, if there is one; see `allranks.Run.finish`."""
    run = current()
    if run is not None:
        run.finish(exit_code, quiet)


def of_run(method: Callable[Concatenate[Run, P], T]) -> Callable[P, T | None]:
    """The function of the module that calls this method of the current run; before `init` it says what is missing."""
    name = method.__name__

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        run = current()
        if run is None:
            warn_once(
                f"wandb no run {name}", f"wandb.{name}() was called and no run is there: call wandb.init() first"
            )
            return None
        return method(run, *args, **kwargs)

    signature = inspect.signature(method)
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]  # which `inspect` looks for
        parameters=[parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    )
    return call


def _ends_for(run: Run, reinit: Any) -> bool:
    """Whether `init` ends this run before it begins another."""
    if run.is_finished or run.is_inherited:
        return False
    return reinit in _FINISH_FIRST or (reinit in (None, "default") and is_notebook())
