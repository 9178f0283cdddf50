"""The current run of this process, and the hooks that keep it right through fork, exception and exit.

The hooks are set by the first `init`, not by the import.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from allranks import _loading, _warnings
from allranks._run import Run
from allranks._settings import run_settings
from allranks._warnings import warn_once
from allranks_bus.errors import SettingError

_current: Run | None = None
_has_hooks = False


def init(
    project: str | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    id: str | None = None,  # noqa: A002  (the name that training people know)
    config: Any = None,
    tags: Iterable[str] = (),
    notes: str | None = None,
    dir: str | None = None,  # noqa: A002
    mode: str | None = None,
    url: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    resume: str = "allow",
) -> Run:
    """Joins this launch's run, or starts one, in a few milliseconds; it waits for no collector.

    Every rank calls it alike: all ranks of one launch find the same run by themselves, from their launcher's
    environment, from torch.distributed where it is up, or from the process that started them.

    Args:
        project: what the run belongs to; None means ALLRANKS_PROJECT, else `default`.
        group, name, notes, tags: for people; None means ALLRANKS_GROUP and ALLRANKS_NAME, else a name from the id.
        id: names the run; give the same one again for another attempt of it. None: found as said above.
        config: a mapping or an argparse.Namespace: what the run is started with.
        dir: where `run.dir` is made; None means ALLRANKS_DIR, else under ALLRANKS_HOME.
        mode: `online`, `offline` (the spool alone, for `allranks sync`) or `disabled`; None means ALLRANKS_MODE.
        url: of the collector, `tcp://HOST:PORT` or `ipc:///PATH`; None means ALLRANKS_URL, else this user's own
            collector, which is started if it does not run.
        rank, world_size: this process's place, where no launcher tells it.
        resume: `allow`: an id that is known already gets a further attempt; `never`: a run of its own.

    Returns:
        The run; the one that is current already where this process called `init` before and has not finished.

    Raises:
        IdentityError, AddressError, SettingError: an argument can never be right. Nothing in the environment makes
            it raise: that gives one warning.
    """
    from allranks.identity import PARENT_VARIABLE, export_parent, identify

    global _current
    if resume not in ("allow", "never"):
        raise SettingError("resume", resume, "allow or never", "init")
    if _current is not None and not _current.is_finished and not _takes_another_place(rank, world_size):
        if id is not None and id != _current.id:
            warn_once(
                "init", f"init() was called again: the run {_current.id} goes on (finish() it to begin another)"
            )
        elif config is not None:
            _current.config.update(config, allow_val_change=True)
        return _current
    settings = run_settings(os.environ, mode, url)
    who, facts = identify(rank=rank, world_size=world_size, id=id, project=project, group=group, name=name)
    for problem in who.problems:
        warn_once(f"identity:{problem}", problem)
    run = Run(who, facts, settings, notes=notes, tags=tuple(map(str, tags)), directory=dir)
    _set_hooks()
    run.start(config)
    os.environ[PARENT_VARIABLE] = export_parent(who, facts)
    _current = run
    return run


def _takes_another_place(rank: int | None, world_size: int | None) -> bool:
    """Whether this process has become a rank since its first `init`.

    A spawned child of a program without a main guard calls `init` while it runs the main module again, and gets its
    parent's run; then the function that it was spawned for takes its place in the world, and calls `init` as a rank.
    """
    from allranks.identity import identify

    if _current is None or _current.identity.role != "child":
        return False
    who, _ = identify(rank=rank, world_size=world_size)
    return who.role == "rank"


def current() -> Run | None:
    """The current run; None before `init`."""
    return _current


def log(data: Mapping[str, Any], step: int | None = None) -> None:
    """`Run.log` of the current run."""
    if _current is None:
        warn_once("no run", "log() was called before init(): nothing is kept")
    else:
        _current.log(data, step)


def define_metric(name: str, step_metric: str | None = None, summary: str | None = None) -> None:
    """`Run.define_metric` of the current run."""
    if _current is None:
        warn_once("no run", "define_metric() was called before init(): nothing is kept")
    else:
        _current.define_metric(name, step_metric, summary)


def status() -> dict[str, Any]:
    """`Run.status` of the current run; empty before `init`."""
    return {} if _current is None else _current.status()


def finish(exit_code: int | None = None, timeout: float = 5.0) -> None:
    """`Run.finish` of the current run; nothing where there is none."""
    if _current is not None:
        _current.finish(exit_code, timeout)


def _set_hooks() -> None:
    global _has_hooks
    if _has_hooks:
        return
    _has_hooks = True
    # Not only when an exception is told: that import makes named tuples by eval(), which lets Python forget that it
    # was a Ctrl-C that nobody handled, and the program would exit with 1 in place of by SIGINT.
    _loading.load("traceback")

    os.register_at_fork(
        before=_loading.before_fork,
        after_in_parent=_loading.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
    atexit.register(_at_exit)
    sys.excepthook = _recording(sys.excepthook)


def _after_fork_in_child() -> None:
    _loading.after_fork_in_child()
    _warnings.forget()
    if _current is not None:
        _current.become_child()


def _at_exit() -> None:
    if _current is not None:
        _current.finish_at_exit()


_Hook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]


def _recording(previous: _Hook) -> _Hook:
    """An excepthook that tells the run of the exception, then does what the one before did."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _current is not None:
            _current.record_failure(kind, error, trace)
        previous(kind, error, trace)

    return hook
