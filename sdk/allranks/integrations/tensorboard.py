"""A writer with the interface of `torch.utils.tensorboard.SummaryWriter`, which logs to a run:

    from allranks.integrations.tensorboard import SummaryWriter

is the one line that changes. Scalars, histograms, text and hyperparameters are stored; pictures, sound, graphs,
meshes, embeddings and layouts are left out, and the first of each kind says so. Neither tensorboard nor torch is
needed or imported.
"""

# ruff: noqa: ARG002  (arguments of TensorBoard's that mean nothing here)

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from allranks import _current
from allranks._run import Run
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks.histograms import BINS, MAX_BINS
from allranks.values import Histogram

LEFT_OUT: Mapping[str, str] = {
    "add_image": "images",
    "add_images": "images",
    "add_image_with_boxes": "images",
    "add_figure": "figures",
    "add_video": "videos",
    "add_audio": "sounds",
    "add_graph": "graphs of a model",
    "add_onnx_graph": "graphs of a model",
    "add_embedding": "embeddings",
    "add_mesh": "meshes",
    "add_pr_curve": "precision-recall curves",
    "add_pr_curve_raw": "precision-recall curves",
    "add_custom_scalars": "layouts",
    "add_custom_scalars_multilinechart": "layouts",
    "add_custom_scalars_marginchart": "layouts",
}


@dataclass
class _Shared:
    """The writers that are open on one run, and the folder of the first.

    Where one of them began it, the last that closes ends it.
    """

    is_begun: bool
    first_dir: str | os.PathLike[str] | None
    open: list[SummaryWriter] = field(default_factory=list["SummaryWriter"])


_shared: dict[str, _Shared] = {}


class SummaryWriter:
    """Logs to the current run; where there is none it begins one, which ends when its last writer is closed.

    A second writer that is open beside the first, with another `log_dir`, puts the part of its `log_dir` in which
    they differ before its tags (`val/loss`): TensorBoard would show it as a run beside the other.

    Args:
        log_dir: names the run that is begun; it is made, as TensorBoard does, for programs that put files there.
            None means `run.dir`, whose files are stored with the run.
        comment: names the run where there is no `log_dir`.
        purge_step, max_queue, flush_secs, filename_suffix: accepted; there is nothing to choose.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        run = _current.current()
        is_begun = run is None or run.is_implied or run.is_finished
        if run is None or is_begun:
            run = _current.init(name=_name(log_dir, comment))
        self._run: Run = run
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        shared = _shared.setdefault(run.id, _Shared(is_begun, log_dir))
        shared.open.append(self)
        self._prefix = _difference(shared.first_dir, log_dir)
        self._counts: dict[str, int] = {}
        self._newest = 0  # of the steps that were given
        try:
            if log_dir is not None:
                Path(log_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warn_once("tensorboard dir", f"SummaryWriter: cannot make {log_dir}: {error.strerror}")

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The methods that are left out."""
        if name not in LEFT_OUT:
            raise AttributeError(f"SummaryWriter has no {name!r}")

        def left_out(*_: Any, **__: Any) -> None:
            warn_once(f"tensorboard {name}", f"SummaryWriter.{name}: {LEFT_OUT[name]} are not stored; the rest is")

        return left_out

    @property
    def log_dir(self) -> str:
        """As given, else `run.dir`, which is made when it is asked for."""
        return self._run.dir if self._log_dir is None else self._log_dir

    def get_logdir(self) -> str:
        """`log_dir`."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Stores a number under `tag`.

        Args:
            global_step: None counts the calls without one, for each tag: 0, 1, 2 … (TensorBoard puts them all at 0);
                from the newest step on that was given, where there is one.
            walltime: Unix seconds; None means now.
        """
        self._log({tag: scalar_value}, tag, global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Stores numbers under `main_tag/NAME`."""
        self._log({main_tag: tag_scalar_dict}, main_tag, global_step, walltime)

    def add_tensor(
        self, tag: str, tensor: Any, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Stores a tensor of one element as a number, any other as a histogram."""
        self._log({tag: tensor}, tag, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: str | int | Sequence[float] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Stores the distribution of `values`, in bins of one width; edges of one's own are not taken."""
        count = bins if isinstance(bins, int) else BINS
        histogram = Histogram(values, bins=min(count, max_bins or MAX_BINS))
        self._log({tag: histogram}, tag, global_step, walltime)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,  # noqa: A002
        max: float,  # noqa: A002
        num: int,
        sum: float,  # noqa: A002
        sum_squares: float,
        bucket_limits: Sequence[float],
        bucket_counts: Sequence[float],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Stores a histogram that has been counted: `bucket_limits` are the upper ends of its bins."""
        # The last limit may be the largest double.
        limits = [limit if limit < max else max for limit in bucket_limits]  # noqa: FURB136  (they are shadowed here)
        self._log({tag: Histogram((list(bucket_counts), [min, *limits]))}, tag, global_step, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Stores text."""
        self._log({tag: str(text_string)}, tag, global_step, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Puts hyperparameters into the run's config, and logs the metrics that they led to."""
        self._run.config.update(hparam_dict, allow_val_change=True)
        self._log(dict(metric_dict), "", global_step, None)

    def flush(self) -> None:
        """Nothing to do: what was added is kept when the call returns."""

    def close(self) -> None:
        """Ends the run where a writer began it and this is the last one."""
        shared = _shared.get(self._run.id)
        if shared is not None and self in shared.open:
            shared.open.remove(self)
            if not shared.open:
                del _shared[self._run.id]
                if shared.is_begun:
                    self._run.finish()

    def _log(self, data: Mapping[str, Any], tag: str, step: Any, walltime: float | None) -> None:
        if step is None:
            # Not before the steps that others give: what is said at the end of a training belongs there.
            step = max(self._counts.get(tag, 0), self._newest)
            self._counts[tag] = step + 1
        elif isinstance(step, int):
            self._newest = max(self._newest, step)
        if self._prefix:
            data = {f"{self._prefix}/{name}": value for name, value in data.items()}
        time_ns = _nanoseconds(walltime)
        if time_ns is None:
            self._run.log(data, step)
        else:
            self._run.log_at(time_ns, data, step)


def _name(log_dir: str | os.PathLike[str] | None, comment: str) -> str | None:
    """What a run is called that a writer begins; None leaves it to allranks."""
    return (Path(log_dir).name if log_dir else comment.strip(" _-")) or None


def _difference(first: str | os.PathLike[str] | None, other: str | os.PathLike[str] | None) -> str:
    """The part of the folder `other` that `first` has not; empty where they are the same, or none was named."""
    if first is None or other is None:
        return ""
    here, there = (Path(path).absolute() for path in (first, other))
    if here == there:
        return ""
    rest = there.relative_to(os.path.commonpath([here, there]))
    return str(rest) if rest.parts else there.name


def _nanoseconds(walltime: Any) -> int | None:
    """A time as records have it; None where there is none."""
    if walltime is None:
        return None
    try:
        time_ns = int(float(walltime) * 1e9)
    except Exception as error:
        if is_from_handler(error):
            raise
        return None
    return time_ns if 0 <= time_ns < 2**63 else None
