"""A logger for Lightning's Trainer, in which every rank speaks:

    from allranks.integrations.lightning import AllranksLogger

    trainer = Trainer(strategy="ddp", devices=4, logger=AllranksLogger(project="mnist"))

Lightning calls its loggers in every rank, and most of them keep silent in all but the first. This one stores what
each rank logs, under its rank. It may be made before the Trainer, at the top of a script that each rank runs, and
goes into spawned and forked ranks with the Trainer. A run ends with its process, or by `finish()`.

`callbacks=[AllranksSections()]` beside it tells each rank's time for data, validation and checkpoints apart: then a
long validation is taken for no stall, and `allranks stragglers` says who loads slowly.
"""

# ruff: noqa: ARG002  (arguments of calls that are not stored)

from __future__ import annotations

import glob
import importlib
import os
import sys
import weakref
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from allranks import _current
from allranks._config import entries
from allranks._run import Run
from allranks._warnings import warn_once
from allranks.integrations._joining import joined

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    from allranks._sections import Section
else:

    def _lightning(module: str, name: str) -> type:
        """A base class of Lightning's, of the package that the program has imported."""
        packages = ["lightning.pytorch", "pytorch_lightning"]
        if packages[0] not in sys.modules and packages[1] in sys.modules:
            packages.reverse()
        for package in packages:
            try:
                return getattr(importlib.import_module(f"{package}.{module}"), name)
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != package.partition(".")[0]:
                    raise
        raise ImportError("allranks.integrations.lightning needs Lightning: pip install lightning")

    Logger = _lightning("loggers", "Logger")
    Callback = _lightning("callbacks", "Callback")

# A reference to a model, what is kept of it, and how often.
_Watched: TypeAlias = "tuple[weakref.ref[Any], str | None, int]"


class AllranksLogger(Logger):
    """Logs each rank's metrics to one run.

    Joins the current run where `allranks.init` has been called already, by this process or by another rank of the
    launch; else the run starts with the training, and what is told here is handed to `allranks.init`.

    Args:
        project, name, group, id, config, tags, notes: as of `allranks.init`.
        save_dir: where the run's directory is made; None means where `allranks.init` makes it.
        log_model: brings checkpoints that lie outside of the run's directory to the collector: False for none, True
            for the best and the last at the end, "all" for each when it is written. Those in the run's directory,
            where Lightning puts them if `ModelCheckpoint` is given no other, are brought in anyway. They are named
            by their folder and file.
        prefix: of all names of metrics.
        run: logs into this one.
        init_kwargs: handed to `allranks.init`: `mode`, `url`, `console`, `rank`, `world_size`, `resume`.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        name: str | None = None,
        group: str | None = None,
        id: str | None = None,  # noqa: A002  (as of init)
        config: Any = None,
        tags: Iterable[str] = (),
        notes: str | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        log_model: bool | str = False,
        prefix: str = "",
        run: Run | None = None,
        **init_kwargs: Any,
    ) -> None:
        super().__init__()
        told: dict[str, Any] = {"project": project, "name": name, "group": group, "id": id, "notes": notes}
        told |= {"tags": tuple(tags), "dir": None if save_dir is None else os.fspath(save_dir), **init_kwargs}
        self._told = {key: value for key, value in told.items() if value not in (None, ())}
        early = {key: value for key, value in self._told.items() if key not in ("console", "resume")}
        self._run = run if run is not None else _current.imply(**early)
        self._is_run_given = run is not None
        self._prefix = f"{prefix}{self.group_separator}" if prefix else ""
        self._log_model = log_model
        # What is watched in this process, and what will be once the run is started here: `run.watch`'s arguments.
        self._watched: list[_Watched] = []
        self._to_watch: list[_Watched] = []
        # The best and the last of each callback that writes some; and of those handed over already, when written.
        self._checkpoints: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._saved: dict[str, int] = {}
        if config is not None:
            self.log_hyperparams(config)

    @property
    def experiment(self) -> Run:
        """The run; asked for by the training, in every rank, it is started."""
        run = self._run
        if not (self._is_run_given or run.is_started or run.is_finished):
            run = joined(self._told)
            if run is not self._run:  # `init` was called for another one since
                run.config.update(dict(self._run.config), allow_val_change=True)
                self._run = run
        while self._to_watch:
            self._begin_watch(run, self._to_watch.pop(0))
        return run

    def _begin_watch(self, run: Run, watched: _Watched) -> None:
        model, log, log_freq = watched[0](), *watched[1:]
        if model is not None:
            run.watch(model, log, log_freq)
            self._watched.append(watched)

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def save_dir(self) -> str:
        """The run's directory, the same path on all ranks of a host: all that lies there is stored."""
        return self._run.dir

    @property
    def root_dir(self) -> str:
        """As `save_dir`."""
        return self._run.dir

    @property
    def log_dir(self) -> str:
        """As `save_dir`."""
        return self._run.dir

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_args: Any, **_kwargs: Any) -> None:
        """Adds these to the run's configuration; before the run is there they wait for it. Whatever has no place in
        JSON is stored as its text."""
        try:
            self._run.config.update(entries(params), allow_val_change=True)
        except Exception as error:  # of a mapping that cannot be read
            warn_once("hyperparams", f"log_hyperparams(): {type(params).__name__} is not stored: {error}")

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Stores one event of this rank at Lightning's global step; `epoch` is among what Lightning hands in."""
        if self._prefix:
            metrics = {self._prefix + name: value for name, value in metrics.items()}
        self.experiment.log(metrics, step)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Nothing: graphs are not stored, which is said where one was made. Lightning calls this at each start."""
        if input_array is not None:
            _leave_out("graphs of a model", "log_graph")

    def log_text(
        self,
        key: str,
        text: Any = None,
        *,
        columns: Sequence[Any] | None = None,
        data: Iterable[Sequence[Any]] | None = None,
        step: int | None = None,
    ) -> None:
        """Stores a text, or the rows of `data` as lines of cells."""
        lines = [] if text is None else [str(text)]
        for row in (*([columns] if columns else []), *(data or ())):
            lines.append("\t".join(map(str, row)))
        self.log_metrics({key: "\n".join(lines)}, step)

    def log_table(self, key: str, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: tables are not stored, which is said once."""
        _leave_out("tables", "log_table")

    def log_image(self, key: str, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: images are not stored, which is said once."""
        _leave_out("images", "log_image")

    def log_audio(self, key: str, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: sounds are not stored, which is said once."""
        _leave_out("sounds", "log_audio")

    def log_video(self, key: str, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: videos are not stored, which is said once."""
        _leave_out("videos", "log_video")

    def log_html(self, key: str, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: pages are not stored, which is said once."""
        _leave_out("pages", "log_html")

    def watch(self, model: Any, log: str | None = "gradients", log_freq: int = 100, log_graph: bool = False) -> None:
        """Keeps histograms of the model's gradients and parameters in every rank, from the start of the run on;
        arguments as of `Run.watch`."""
        if log_graph:
            _leave_out("graphs of a model", "watch(log_graph=True)")
        try:
            self._to_watch.append((weakref.ref(model), log, log_freq))
        except TypeError:  # of what is no module at all
            self._run.watch(model, log, log_freq)
        if self._run.is_started:
            _ = self.experiment

    def unwatch(self, model: Any = None) -> None:
        """Ends `watch` of this model, or of all."""
        for watched in (self._watched, self._to_watch):
            watched[:] = [one for one in watched if model is not None and one[0]() is not model]
        self._run.unwatch(model)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Called by a `ModelCheckpoint` of rank 0 when it has written one."""
        if self._log_model == "all":
            self._save_checkpoints(
                _paths(checkpoint_callback, ("best_k_models", "best_model_path", "last_model_path"))
            )
        elif self._log_model:
            # Not the callback, which comes as another weak reference each time, and would have to be pickled.
            which = tuple(str(getattr(checkpoint_callback, name, "")) for name in ("dirpath", "state_key"))
            self._checkpoints[which] = _paths(checkpoint_callback, ("best_model_path", "last_model_path"))

    def finalize(self, status: str) -> None:
        """Called at the end of each `fit`, `test` …: an exception that ended it is kept. The run goes on until the
        process ends, for Lightning does not know what comes next."""
        for paths in self._checkpoints.values():
            self._save_checkpoints(paths)
        if status != "failed":
            self._run.forget_failure()
            return
        kind, error, trace = sys.exc_info()
        if kind is None or error is None:
            return
        self._run.record_failure(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt) and self._run.rank > 0 and self._run.is_started:
            # Rank 0 kills the others now, which must not look as if they had died by themselves.
            self._run.finish_at_exit()

    def __getstate__(self) -> dict[str, Any]:
        """A pickle takes the models along that are watched: with the Trainer they are in it anyway."""
        models = [(model, *how) for ref, *how in (*self._watched, *self._to_watch) if (model := ref()) is not None]
        return {**vars(self), "_watched": [], "_to_watch": models}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In the process that unpickles it the hooks are set anew."""
        vars(self).update(state)
        self._to_watch = [(weakref.ref(model), *how) for model, *how in state["_to_watch"]]

    def __deepcopy__(self, _memo: dict[int, Any]) -> AllranksLogger:
        """Logs into the same run; no model is copied."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def _save_checkpoints(self, paths: Iterable[str]) -> None:
        """Hands over those that have been written since, and that the run's directory does not hold."""
        directory = Path(self._run.dir).resolve()
        for path in map(Path, paths):
            try:
                written_ns = path.stat().st_mtime_ns
                is_held = path.resolve().is_relative_to(directory)
            except OSError:
                continue  # removed again, as one that is not among the best any more
            if is_held or self._saved.get(str(path)) == written_ns:
                continue
            self._saved[str(path)] = written_ns
            pattern = glob.escape(str(path.absolute()))
            whole = f"{pattern}/**" if path.is_dir() else pattern
            self.experiment.save(whole, base_path=str(path.absolute().parent.parent), policy="now")


class AllranksSections(Callback):
    """Marks what each rank does between its training steps as sections of the current run: `data`, `evaluation`,
    `checkpoint`."""

    def __init__(self) -> None:
        super().__init__()
        self._section: Section | None = None

    def __getstate__(self) -> dict[str, Any]:
        """In another process nothing is under way."""
        return {**vars(self), "_section": None}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("data")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._enter(None)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._enter("data")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._enter(None)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("evaluation")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._enter(None)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._enter("checkpoint")  # it is written after this, and left with what comes next

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._enter(None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._enter(None)

    def _enter(self, name: str | None) -> None:
        """Leaves the section that it is in, and enters this one."""
        before, self._section = self._section, None
        if before is not None:
            before.__exit__(None, None, None)
        run = _current.current()
        if name is not None and run is not None:
            self._section = run.section(name)
            self._section.__enter__()


def _leave_out(what: str, call: str) -> None:
    warn_once(f"lightning:{what}", f"{call}: {what} are not stored")


def _paths(callback: Any, names: Iterable[str]) -> tuple[str, ...]:
    """The files that these attributes of a checkpoint callback name, each once."""
    found: dict[str, None] = {}
    for name in names:
        value = getattr(callback, name, None)
        found.update(dict.fromkeys(map(str, value) if isinstance(value, Mapping) else [str(value or "")]))
    return tuple(path for path in found if path)
