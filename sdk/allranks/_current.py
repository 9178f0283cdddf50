"""The current run of this process, and the hooks that keep it right through fork, pickle, exception and exit.

The hooks are set when a run is first made, not by the import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allranks import _exits, _loading, _warnings
from allranks._config import entries
from allranks._notebooks import is_notebook
from allranks._run import Run
from allranks._settings import RunSettings, run_settings
from allranks._warnings import say, warn_once
from allranks_bus.errors import SettingError

if TYPE_CHECKING:
    from allranks.identity import Identity

# Of what the program says of its run.
_MAX_TEXT_CHARS, _MAX_TAGS, _MAX_TAG_CHARS = 64 * 1024, 256, 256

_current: Run | None = None
# Those that this process has: a child may begin a run of its own beside the one that it came with.
_runs: list[Run] = []
# How many runs of its launch this process has ended by `finish`: the ranks of a launch count alike.
_turn = 0
_has_hooks = False
# Held by the thread that begins a run, by process: a forked child must not wait for a thread that it does not have.
_beginning: dict[int, AbstractContextManager[Any]] = {}
# That thread; 0 while nobody begins one.
_beginner = 0
# What telling who this process is, and making its run, imports beside what `import allranks` does.
_NEEDED = ("allranks.identity", "allranks.facts", "allranks._companions")


def init(
    project: str | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    id: str | None = None,  # noqa: A002  (the name that training people know)
    config: Any = None,
    tags: Iterable[str] | None = (),
    notes: str | None = None,
    dir: str | None = None,  # noqa: A002
    mode: str | None = None,
    url: str | None = None,
    console: str | None = None,
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
        console: `fd`: what this process, its C code and its children print is kept too; `wrap`: what its Python
            prints (in a notebook `fd` does that too); `off`; None means ALLRANKS_CONSOLE, else `fd`.
        rank, world_size: this process's place, where no launcher tells it.
        resume: `allow`: an id that is known already gets a further attempt; `never`: a run of its own.

    Returns:
        The run; the one that is current already where this process called `init` before and has not finished. A
        forked child that calls it begins a run of its own, unless it has a place in the world of its parent's.

    Raises:
        IdentityError, AddressError, SettingError: an argument can never be right. Nothing in the environment makes
            it raise: that gives one warning.
    """
    if resume not in ("allow", "never"):
        raise SettingError("resume", resume, "allow or never", "init")
    said = _told(id, project, group, name, notes, tags, dir, rank, world_size)
    chosen = _entries(config)
    with _one_at_a_time():
        now = _current
        if now is not None and _goes_on(now) and not _takes_another_place(now, rank, world_size):
            if not now.is_begun:  # a Ctrl-C came in the middle of the last call
                now.start(chosen)
                return now
            _say_goes_on(now, {"id": said.id, "project": said.project, "group": said.group, "name": said.name})
            if said.id in (None, now.id):
                now.config.update(chosen, allow_val_change=True)
            return now
        settings = run_settings(os.environ, mode, url, console)
        run = _taken_up(said, settings, is_implied=False)
        run.start(chosen)
        return run


def imply(
    *,
    id: str | None = None,  # noqa: A002
    project: str | None = None,
    group: str | None = None,
    name: str | None = None,
    notes: str | None = None,
    tags: Iterable[str] | None = (),
    dir: str | None = None,  # noqa: A002
    mode: str | None = None,
    url: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
) -> Run:
    """The current run, else the one that `init` will start with these arguments: its id and directory are known.

    For what is made before a framework has started the ranks. The ranks find this run by the environment or by a
    pickle; what is told here need not be told again.

    Raises:
        IdentityError, AddressError, SettingError: as `init`.
    """
    said = _told(id, project, group, name, notes, tags, dir, rank, world_size)
    with _one_at_a_time():
        now = _current
        if now is not None and (_goes_on(now) or (now.is_started and not now.is_finished)):
            return now
        settings = run_settings(os.environ, mode, url, None)
        run = _taken_up(said, settings, is_implied=True)
        run.export()
        return run


@dataclasses.dataclass(frozen=True)
class _Told:
    """What the program says of its run; None where it says nothing."""

    id: str | None
    project: str | None
    group: str | None
    name: str | None
    notes: str | None
    tags: tuple[str, ...]
    dir: str | None
    rank: int | None
    world_size: int | None


def _told(
    id: object,  # noqa: A002
    project: object,
    group: object,
    name: object,
    notes: object,
    tags: object,
    dir: object,  # noqa: A002
    rank: int | None,
    world_size: int | None,
) -> _Told:
    """The same as records have it: text, of whatever type the program has it (an experiment's number as its name).

    Notes and tags are cut: nothing of a run could be kept whose first record is too large.

    Raises:
        SettingError: there is no text to be made of it.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        tags = () if tags is None else (tags,)
    if dir is not None and not isinstance(dir, str | os.PathLike):
        raise SettingError("dir", dir, "a path", "init")
    path = None if dir is None else os.fsdecode(dir)
    return _Told(
        *(_text(id), _text(project), _text(group), _text(name), _text(notes)),
        tuple(str(tag)[:_MAX_TAG_CHARS] for tag in itertools.islice(tags, _MAX_TAGS)),
        path,
        rank,
        world_size,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MAX_TEXT_CHARS]


def _entries(config: Any) -> dict[Any, Any]:
    """What the run is started with.

    Raises:
        SettingError: there are no names and values in it.
    """
    try:
        return entries(config)
    except (TypeError, ValueError):
        raise SettingError("config", config, "a mapping or an argparse.Namespace", "init") from None


def _taken_up(told: _Told, settings: RunSettings, *, is_implied: bool) -> Run:
    """The run of these arguments, which is the current one from now on; the one that was implied if it is that."""
    from allranks.identity import identify

    global _current, _turn
    now = _current
    implied = now if now is not None and now.is_implied and not (now.is_inherited or now.is_finished) else None
    turn = _turn + int(now is not None and now.is_finished and not now.is_inherited)
    place: dict[str, Any] = {"rank": told.rank, "world_size": told.world_size}
    place |= {"project": told.project, "group": told.group, "name": told.name}
    # One that was implied is found again by what it exported, where its turn is counted already.
    place["turn"] = turn if implied is None else 0
    who, facts = identify(id=told.id, **place)
    if implied is not None and told.id is None and who.launcher == "single":
        # Nobody but this process could know of it yet, and its directory may be in use.
        who, facts = identify(id=implied.id, **place)
    for problem in who.problems:
        warn_once(f"identity:{problem}", problem)
    if implied is not None and who.run == implied.id:
        run = implied
        project, group, name = told.project or run.project, told.group or run.group, told.name or run.name
        who = dataclasses.replace(who, project=project, group=group, name=name)
        run.announce(who, facts, settings, told.notes, told.tags, told.dir, is_implied=is_implied)
    else:
        about: dict[str, Any] = {"notes": told.notes, "tags": told.tags, "directory": told.dir}
        run = _kept(Run(who, facts, settings, **about, is_implied=is_implied))
    _turn = turn
    _current = run
    return run


@contextlib.contextmanager
def _one_at_a_time() -> Generator[None]:
    """What threads that call `init` at once wait for: they get one run."""
    global _beginner
    with _beginning.setdefault(os.getpid(), threading.RLock()), _loading.undisturbed():
        before, _beginner = _beginner, threading.get_ident()
        try:
            _set_hooks()
            for name in _NEEDED:
                _loading.load(name)
            yield
        finally:
            _beginner = before


def _say_goes_on(run: Run, told: Mapping[str, str | None]) -> None:
    """Says that `init` has not begun another run, where the program may have meant it."""
    message = f"init() was called again: the run {run.id} goes on (finish() it to begin another)"
    if is_notebook():
        say(message)  # each time: a cell may be run again hours later
    elif any(value is not None and value != getattr(run, name) for name, value in told.items()):
        warn_once("init", message)


def _goes_on(run: Run) -> bool:
    """Whether `init` gives this run back: one that it was called for in this very process."""
    return not (run.is_finished or run.is_implied or run.is_inherited)


def _takes_another_place(run: Run, rank: int | None, world_size: int | None) -> bool:
    """Whether this process has become a rank since its first `init`.

    A spawned child of a program without a main guard calls `init` while it runs the main module again, and gets its
    parent's run; then the function that it was spawned for takes its place in the world, and calls `init` as a rank.
    """
    from allranks.identity import identify

    if run.role != "child":
        return False
    who, _ = identify(rank=rank, world_size=world_size)
    return who.role == "rank"


def current() -> Run | None:
    """The current run; None where there is none yet."""
    return _current


def current_or_implied() -> Run:
    """The current run; where `init` has not been called yet, the one that it will be for, without waiting.

    So a rank that leaves `init` to another one knows the run and its directory, and joins it when it logs.
    """
    return _current if _current is not None else imply()


def restored(told: Mapping[str, Any], writer: bytes) -> Run:
    """The run of a pickle: this process's own where it has it, else one that logs into it as `writer`'s child."""
    with _one_at_a_time():
        identity = told["identity"]
        for run in reversed(_runs):
            if run.id == identity.run and run.identity.launch == identity.launch:
                return run
        return _handed_over(told, identity, writer)


def _handed_over(told: Mapping[str, Any], identity: Identity, writer: bytes) -> Run:
    global _current
    from allranks.facts import gather_facts

    settings = run_settings(os.environ, told["mode"], told["url"], None)
    run = Run(
        dataclasses.replace(identity, role="child"),
        gather_facts(),
        settings,
        notes=told["notes"],
        tags=told["tags"],
        directory=told["directory"],
        is_implied=told["is_implied"],
        parent=writer,
    )
    run.config.restore(told["config"])
    run.summary.restore(told["summary"])
    _kept(run)
    if _current is None or _current.is_finished:
        _current = run
    return run


def log(data: Mapping[str, Any], step: int | None = None) -> None:
    """`Run.log` of the current run; a rank that has not called `init` joins its launch's run by it."""
    run = _current if _current is not None else _acting()
    if run is not None:
        run.log(data, step)


def define_metric(name: str, step_metric: str | None = None, summary: str | None = None) -> None:
    """`Run.define_metric` of the current run."""
    run = _acting()
    if run is not None:
        run.define_metric(name, step_metric, summary)


def save(
    glob: str | os.PathLike[str], base_path: str | os.PathLike[str] | None = None, policy: str = "live"
) -> list[str]:
    """`Run.save` of the current run."""
    run = _acting()
    return run.save(glob, base_path, policy) if run is not None else []


def watch(model: Any, log: str | None = "gradients", log_freq: int = 1000) -> None:
    """`Run.watch` of the current run."""
    run = _acting()
    if run is not None:
        run.watch(model, log, log_freq)


def alert(title: str, text: str = "", level: str = "INFO", wait: float = 0.0) -> None:
    """`Run.alert` of the current run."""
    run = _acting()
    if run is not None:
        run.alert(title, text, level, wait)


def agree(name: str, value: Any, step: int | None = None) -> None:
    """`Run.agree` of the current run."""
    run = _acting()
    if run is not None:
        run.agree(name, value, step)


def section(name: str) -> AbstractContextManager[Any]:
    """`Run.section` of the current run."""
    run = _current if _current is not None else _acting()
    return run.section(name) if run is not None else contextlib.nullcontext()


def expect(seconds: float) -> None:
    """`Run.expect` of the current run."""
    run = _acting()
    if run is not None:
        run.expect(seconds)


def status() -> dict[str, Any]:
    """`Run.status` of the current run; empty before `init`."""
    return {} if _current is None else _current.status()


def finish(exit_code: int | None = None, timeout: float | None = 5.0) -> None:
    """`Run.finish` of the current run; nothing where there is none."""
    if _current is not None:
        _current.finish(exit_code, timeout)


def _acting() -> Run | None:
    """The current or implied run; None, which is said, in a signal handler that comes while this thread begins it."""
    if _current is None and _beginner == threading.get_ident():
        warn_once("beginning", "a signal handler logged in the middle of init(): nothing is kept of it")
        return None
    return current_or_implied()


def _kept(run: Run) -> Run:
    """Sees to it that `run` comes to its right end with this process."""
    _runs[:] = [other for other in _runs if not other.is_finished]
    _runs.append(run)
    return run


def _set_hooks() -> None:
    global _has_hooks
    if _has_hooks:
        return
    _has_hooks = True
    # First: what is imported from here on, in whatever thread, is waited for by a fork.
    os.register_at_fork(
        before=_loading.before_fork,
        after_in_parent=_loading.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
    _exits.watch(_at_exit, _failed)


def watch_end_of_child() -> None:
    """Called when a run opens its log, which may be in a child of multiprocessing."""
    _exits.watch_child(_at_exit, _failed)


def _after_fork_in_child() -> None:
    global _turn, _beginner
    _loading.after_fork_in_child()
    _warnings.forget()
    _turn = 0
    _beginner = _beginner if _beginner == threading.get_ident() else 0
    if _runs:
        from allranks.facts import forget_group  # which is loaded then

        forget_group()
    for run in _runs:
        run.become_child()


def _at_exit(exit_code: int | None = None) -> None:
    for run in _runs:
        try:
            run.finish_at_exit(exit_code)
        except KeyboardInterrupt:  # somebody does not want to wait
            run.finish_at_exit(exit_code, waits=False)
        except Exception as error:  # the others must come to their end too
            warn_once(f"exit:{run.id}", f"run {run.id} could not be ended: {type(error).__name__}: {error}")


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for run in _runs:
        run.record_failure(kind, error, trace)
