"""A tracker for Accelerate, in which every process speaks:

    from allranks.integrations.accelerate import AllranksTracker, log_from_every_process

    accelerator = log_from_every_process(Accelerator(log_with=AllranksTracker(project="mnist")))
    accelerator.init_trackers("mnist", config={"lr": 3e-4})
    accelerator.log({"loss": loss}, step=step)

The tracker says that it is for all processes (`main_process_only = False`), but `Accelerator.init_trackers` and `log`
call no tracker outside of the main one. `log_from_every_process` mends that for one Accelerator; without it the
others call `tracker.log` themselves. Where Accelerate knows trackers by name, `log_with="allranks"` does the same
once this module has been imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import allranks
from allranks.integrations._joining import joined

try:
    from accelerate import tracking
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "accelerate":
        raise
    raise ImportError("allranks.integrations.accelerate needs accelerate: pip install accelerate") from None


class AllranksTracker(tracking.GeneralTracker):  # type: ignore[misc, unused-ignore]
    """Logs what each process hands to `Accelerator.log` to one run.

    Joins the current run where there is one, else the run begins with `init_trackers`, and ends with `end_training`.

    Args:
        project: as of `allranks.init`; by name, Accelerate gives the one of `init_trackers`.
        init_kwargs: further arguments of `allranks.init`, for a run that begins here.
    """

    name = "allranks"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, project: str | None = None, **init_kwargs: Any) -> None:
        super().__init__()
        told = {"project": project, **init_kwargs}
        self._told = {key: value for key, value in told.items() if value is not None}
        self._run: allranks.Run | None = None
        self._is_ours = False

    def __getstate__(self) -> dict[str, Any]:
        """In another process it finds its run there."""
        return {**self.__dict__, "_run": None, "_is_ours": False}

    @property
    def tracker(self) -> allranks.Run:
        """The run."""
        self.start()
        assert self._run is not None
        return self._run

    def start(self) -> None:
        """Joins the run, or begins it; called by `init_trackers` in every process."""
        if self._run is None or self._run.is_finished:
            self._is_ours = not allranks.run.is_started
            self._run = joined(self._told)

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Adds these to the run's configuration; all processes are given the same, and one of them tells it."""
        run = self.tracker
        if run.rank == 0:
            run.config.update(values, allow_val_change=True)

    def log(self, values: Mapping[str, Any], step: int | None = None, **_: Any) -> None:
        """Stores one event of this process."""
        self.tracker.log(values, step)

    def finish(self) -> None:
        """Ends this process's part of a run that began here; called by `end_training`."""
        if self._is_ours and self._run is not None and not self._run.is_finished:
            self._run.finish()


def log_from_every_process(accelerator: Any) -> Any:
    """Lets `accelerator.init_trackers` and `.log` reach the trackers that are for all processes, in all of them.

    Args:
        accelerator: an `accelerate.Accelerator`, before `init_trackers`.

    Returns:
        The same one.
    """
    if not accelerator.is_main_process:
        accelerator.init_trackers = partial(_init_trackers, accelerator)
        accelerator.log = partial(_log, accelerator)
    return accelerator


def _init_trackers(
    accelerator: Any,
    project_name: str,
    config: dict[str, Any] | None = None,
    init_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """What `Accelerator.init_trackers` does in the main process, for the trackers that are for the others too."""
    for one in accelerator.log_with:
        if not isinstance(one, tracking.GeneralTracker) and str(one) == AllranksTracker.name:
            one = AllranksTracker(project_name, **(init_kwargs or {}).get(AllranksTracker.name, {}))
        if not getattr(one, "main_process_only", True):
            accelerator.trackers.append(one)
            one.start()
            if config is not None:
                one.store_init_configuration(config)


def _log(
    accelerator: Any,
    values: Mapping[str, Any],
    step: int | None = None,
    log_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """What `Accelerator.log` does in the main process."""
    for one in accelerator.trackers:
        one.log(values, step=step, **(log_kwargs or {}).get(one.name, {}))


if hasattr(tracking, "register_tracker_class"):  # its older releases know only instances
    tracking.register_tracker_class(AllranksTracker)
