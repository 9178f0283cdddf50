"""`wandb.Run`: a run of allranks with wandb's methods."""

# ruff: noqa: ARG002  (wandb's arguments that mean nothing here)

from __future__ import annotations

import glob as globbing
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks.compat.wandb._alerts import AlertLevel, level_name, wait_s
from allranks.compat.wandb._artifact import Artifact
from allranks.compat.wandb._facts import Facts
from allranks.compat.wandb._left_out import LeftOut, say_left_out, without
from allranks.compat.wandb._mappings import Config, Summary
from allranks.compat.wandb._metrics import Metric, metric_name, summary_word
from allranks.compat.wandb._table import FUNCTIONS, Fate, names_of
from allranks.compat.wandb.errors import UnsupportedError

if TYPE_CHECKING:
    from datetime import timedelta

    from allranks import Run as AllranksRun

_LEFT_OUT = names_of(FUNCTIONS, Fate.LEFT_OUT)
_REFUSED = names_of(FUNCTIONS, Fate.REFUSED)

StrPath = str | os.PathLike[str]


class Run(Facts):
    """What `wandb.init` returns. As with allranks' own run, nothing here raises into the training but for what
    cannot be meant; and what `log` took is stored.

    Args:
        run: the run of allranks.
        chosen: what it was made with, by the names of `init`'s arguments.
    """

    def __init__(self, run: AllranksRun, chosen: Mapping[str, Any] | None = None) -> None:
        super().__init__(run, chosen or {})
        self._step = 0
        self._open_mappings()

    def __repr__(self) -> str:
        return f"<wandb.Run over {self._run!r}>"

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.__exit__(kind, error, trace)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_config": None, "_summary": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_mappings()

    def _open_mappings(self) -> None:
        """The mappings, over those of allranks' run, which are told of each change."""
        run = self._run
        self._config = Config(lambda changes: run.config.update(changes, allow_val_change=True))
        self._config.restore(run.config)
        self._summary = Summary(lambda changes: run.summary.update(changes))
        self._summary.restore(run.summary)

    # -- what it logs ----------------------------------------------------------------------------------------------

    def log(
        self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, sync: bool | None = None
    ) -> None:
        """Stores values at a step, at once.

        Args:
            data: names and values; names of nested dicts are joined with `/`. What is left out leaves the rest.
            step: of these values; one that has gone by is stored too. None means the current step.
            commit: whether the next call without a step goes on to the next one; None means yes, but for a call
                with a step.
        """
        at, following = self._step, self._step
        if step is not None:
            at = self._whole(step)
            following = max(at, following)
        if commit or (commit is None and step is None):
            following = max(at + 1, following)
        self._step = following
        try:
            if LeftOut.were_made:
                data = without(data)
            self._summary.remember(data)
        except Exception as error:  # odd data, which log() has words for
            if is_from_handler(error):
                raise
        self._run.log(data, at)

    def _whole(self, step: Any) -> int:
        """The step that was given, as a number; the current one where it is none, which is said."""
        try:
            number = int(step)
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once("wandb step", f"log(): step must be a whole number, not {type(step).__name__}")
            return self._step
        if number < self._step:
            warn_once("wandb past", f"log(): step {number} comes after step {self._step}; it is stored all the same")
        return number

    def define_metric(
        self,
        name: str,
        step_metric: Any = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        overwrite: bool | None = None,
        goal: str | None = None,
    ) -> Metric:
        """Says how a metric is charted and summarised; `step_sync`, `hidden` and `overwrite` have no meaning here."""
        metric = Metric(str(name), metric_name(step_metric), summary_word(name, summary, goal))
        self._run.define_metric(metric.name, metric.step_metric, metric.summary)
        return metric

    def alert(
        self,
        title: str,
        text: str = "",
        level: str | AlertLevel | None = None,
        wait_duration: float | timedelta | None = None,
    ) -> None:
        """Stores a message for people, unless there was one of this title less than `wait_duration` ago."""
        self._run.alert(title, text, level_name(level), wait_s(wait_duration))

    def watch(
        self,
        models: Any,
        criterion: Any = None,
        log: str | None = "gradients",
        log_freq: int = 1000,
        idx: int | None = None,
        log_graph: bool = False,
    ) -> None:
        """Keeps histograms of the gradients or parameters of one or several models."""
        if log_graph:
            say_left_out("watch(log_graph=True)", "graphs are not stored")
        for model in models if isinstance(models, list | tuple) else (models,):
            self._run.watch(model, log=log, log_freq=log_freq)

    def unwatch(self, models: Any = None) -> None:
        """Ends `watch`."""
        for model in models if isinstance(models, list | tuple) else (models,):
            self._run.unwatch(model)

    # -- its files -------------------------------------------------------------------------------------------------

    @property
    def dir(self) -> str:
        """The run's folder; whatever is put in it is stored with the run."""
        return self._run.dir

    def save(
        self,
        glob_str: StrPath | None = None,
        base_path: StrPath | None = None,
        policy: str = "live",
        glob: bool = True,
    ) -> bool | list[str]:
        """Stores files with the run; see `allranks.Run.save`. Without arguments it has nothing to do."""
        if glob_str is None:
            return True
        return self._run.save(glob_str if glob else _escaped(glob_str), base_path, policy)

    def restore(
        self, name: str, run_path: str | None = None, replace: bool = False, root: str | None = None
    ) -> TextIO | None:
        """A file of `run.dir`, open for reading; None where it is not there."""
        try:
            return open(Path(root or self.dir) / name, encoding="utf-8", errors="surrogateescape")
        except OSError:
            say_left_out(f"restore({name!r})", "it is not in run.dir; files of other runs can be downloaded")
            return None

    def log_artifact(
        self,
        artifact_or_path: Artifact | StrPath,
        name: str | None = None,
        type: str | None = None,  # noqa: A002
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Artifact:
        """Stores the files of an artifact with the run, as they are now."""
        if isinstance(artifact_or_path, Artifact):
            artifact = artifact_or_path
        else:
            path = Path(artifact_or_path)
            artifact = Artifact(name or path.name, type or "unspecified")
            artifact.paths.append(path)
        artifact.aliases = list(aliases or ())
        for path in artifact.paths:
            if not path.is_relative_to(self.dir):  # else it is stored with the run already
                pattern = _escaped(path) + ("/**" if path.is_dir() else "")
                self._run.save(pattern, str(path.parent), "now")
        return artifact

    def log_model(self, path: StrPath, name: str | None = None, aliases: Sequence[str] | None = None) -> None:
        """Stores a model's files with the run, as they are now."""
        self.log_artifact(path, name, "model", aliases)

    def use_artifact(self, artifact_or_name: Any, *_: Any, **__: Any) -> Any:
        """Refused, unless the artifact is there already."""
        if isinstance(artifact_or_name, Artifact):
            return artifact_or_name
        raise UnsupportedError(f"wandb.use_artifact: {_REFUSED['use_artifact']}")

    def use_model(self, name: str) -> Any:
        """Refused."""
        raise UnsupportedError(f"wandb.use_model: {_REFUSED['use_model']}")

    # -- what is read of it, beside its facts -----------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return self._config

    @property
    def summary(self) -> Summary:
        return self._summary

    @property
    def step(self) -> int:
        """The step at which the next call without one is stored."""
        return self._step

    # -- its end, and what has no meaning ---------------------------------------------------------------------------

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """Ends the run: waits until all is stored, but no longer than `allranks.Run.finish` does."""
        self._run.finish(exit_code)

    def mark_preempting(self) -> None:
        """Nothing to say: a run that comes back is a further attempt."""

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """False: there is no page to show in a notebook."""
        return False

    def log_code(self, *_: Any, **__: Any) -> None:
        """Left out."""
        say_left_out("log_code", _LEFT_OUT["log_code"])

    def link_model(self, *_: Any, **__: Any) -> None:
        """Left out."""
        say_left_out("link_model", _LEFT_OUT["link_model"])

    def link_artifact(self, *_: Any, **__: Any) -> None:
        """Left out."""
        say_left_out("link_artifact", _LEFT_OUT["link_artifact"])


def _escaped(path: StrPath) -> str:
    """A pattern that only this path fits."""
    return globbing.escape(os.fspath(path))
