"""A run, as a program uses it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allranks import _exits
from allranks._ending import standing
from allranks._log_any import log_any
from allranks._part import RunPart
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks_bus import events, home
from allranks_bus.events import Kind

if TYPE_CHECKING:
    from allranks._alerts import Alerts
    from allranks._device import Arrivals
    from allranks._sections import Section

SUMMARIES = ("last", "min", "max", "mean")
_MAX_NAME_CHARS = 256


class Run(RunPart):
    """One training job, seen from one of its processes. Nothing here raises into the training but for arguments that
    can never be right; everything may be called from any thread, and in a forked child.

    Attributes:
        id, project, group, name: the same in all ranks of the run.
        rank, world_size, local_rank: this process's place.
        config, summary: mappings whose changes are stored.
    """

    # Made with the first one.
    _alerts: Alerts | None = None

    def __repr__(self) -> str:
        return f"<allranks.Run {self.id} ({self.name}), rank {self.rank} of {self.world_size}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickled in another process it logs into the same run; in the same one it is the same object."""
        told = {
            "identity": dataclasses.replace(self.identity, problems=()),
            "mode": self.settings.mode,
            "url": str(self.settings.address) if self.settings.address else None,
            "notes": self.notes,
            "tags": self.tags,
            "directory": self._directory,
            "is_implied": self._is_implied,
            "config": dict(self.config),
            "summary": dict(self.summary),
        }
        from allranks import _current

        return _current.restored, (told, self._writer)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_code = _exits.code_of(error) if isinstance(error, SystemExit) else None
        if error is not None and kind is not None and exit_code is None:
            self.record_failure(kind, error, trace)
        self.finish(exit_code)

    def log(self, data: Mapping[str, Any], step: int | None = None) -> None:
        """Keeps one event; it survives whatever happens to this process once this returns, in about 2 µs.

        Never raises, but for what a signal handler of the program raises in the middle of it. Never waits for a
        network, and takes no lock that is held for long.

        Args:
            data: names and values: numbers of Python, numpy and torch; nested dicts, whose names are joined with
                `/`; short text; arrays, which become histograms. What cannot be stored gives one warning that
                names it, and does not cost the values beside it. CUDA tensors are copied behind the device's own
                work, and stored when they have come.
            step: the training step, a whole number; None means one more than that of the event before.
        """
        try:
            self._log.metrics(data, step)  # type: ignore[union-attr]  # None takes the slow path, like all that is odd
        except Exception as error:
            if is_from_handler(error):
                raise
            self._log_slowly(data, step)

    def define_metric(self, name: str, step_metric: str | None = None, summary: str | None = None) -> None:
        """Says how a metric is charted and summarised.

        Args:
            name: of the metric, or a prefix that ends in `*`.
            step_metric: the metric to chart it against; None means the step.
            summary: `last` (the default), `min`, `max` or `mean`.
        """
        if summary is not None and summary not in SUMMARIES:
            warn_once(f"define:{name}", f"define_metric({name!r}): summary is one of {', '.join(SUMMARIES)}")
            summary = None
        how = {"step_metric": step_metric, "summary": summary}
        self._append(Kind.DEFINE, str(name), {key: str(value) for key, value in how.items() if value is not None})

    def save(
        self, glob: str | os.PathLike[str], base_path: str | os.PathLike[str] | None = None, policy: str = "live"
    ) -> list[str]:
        """Has files brought to the collector, beside all those in `run.dir`; waits for nothing, and never raises.

        Args:
            glob: a path or a pattern.
            base_path: the folder that the stored names are relative to; None means the working directory for a
                relative `glob`, else the folder in which the pattern begins.
            policy: `live`: now, and whenever they change; `now`: once; `end`: when the run ends here.

        Returns:
            The names under which they will be stored.
        """
        self._ready_log()
        files = self._companions.files
        if files is None:
            warn_once("save", f"save({str(glob)!r}): nothing is kept of this run here, so no file is either")
            return []
        return files.save(glob, base_path, policy)

    def watch(self, model: Any, log: str | None = "gradients", log_freq: int = 1000) -> None:
        """Keeps histograms of a torch module's gradients and parameters; never forces ranks into step.

        Gradients are this rank's own, before they are averaged over ranks (and scaled where a GradScaler is used).

        Args:
            model: a `torch.nn.Module`; where it is wrapped or sharded, as it is after that.
            log: `gradients`, `parameters`, `all`, or None for nothing.
            log_freq: every so many backward passes.
        """
        from allranks import _watch

        _watch.watch(self, model, log, log_freq)

    def unwatch(self, model: Any = None) -> None:
        """Ends `watch` of this module, or of all."""
        from allranks import _watch

        _watch.unwatch(self, model)

    def alert(self, title: str, text: str = "", level: str = "INFO", wait: float = 0.0) -> None:
        """Keeps a message for people.

        Args:
            level: `INFO`, `WARN` or `ERROR`.
            wait: for so many seconds this process keeps no other one of this title.
        """
        if self._alerts is None:
            from allranks._alerts import Alerts

            self._alerts = Alerts()
        body = self._alerts.take(title, text, level, wait)
        if body is not None:
            self._append(Kind.ALERT, body)

    def agree(self, name: str, value: Any, step: int | None = None) -> None:
        """Keeps a value that all ranks should have alike at this step: who differs from the others is named.

        Args:
            value: a number or text; long text is kept by its hash. It is compared exactly.
            step: the training step; None means the newest that was logged here.
        """
        try:
            from allranks._agree import PREFIX, TYPE, agreed

            body = {"_type": TYPE, "value": agreed(value)}
            log = self._ready_log()
            if log is not None:
                at = max(0, log.step) if step is None else int(step)
                if not -(2**63) <= at < 2**63:
                    raise ValueError("step must be a whole number of 64 bits")
                log.append_fields(time.time_ns(), at, {f"{PREFIX}{name}"[:_MAX_NAME_CHARS]: body})
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(f"agree:{name}", f"agree({str(name)[:80]!r}) is not kept: {error}")

    def section(self, name: str) -> Section:
        """A part of the training's work, as a context manager: `with run.section("data"): batch = next(batches)`.

        Costs about a microsecond, may be nested, and never raises. What each takes is stored about once a second and
        compared between ranks; a long one is judged by how long it has taken before, not by the pace of the steps.
        Those in which ranks wait for each other are `sync`, `barrier`, `all_reduce` and the like
        (`allranks stragglers` says which).
        """
        sections = self._companions.sections
        return (self._companions.open_sections() if sections is None else sections).section(name)

    def expect(self, seconds: float) -> None:
        """Announces that no step may come for so many seconds from now (a first compile, a checkpoint): nobody calls
        this rank stalled meanwhile. The next step ends it."""
        self._companions.open_sections().expect(seconds)

    @property
    def dir(self) -> str:
        """The run's directory: the same path on all ranks of a host, made if need be, without asking anybody."""
        path = self._directory_path()
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            warn_once("dir", f"cannot make the run's directory {path}: {error.strerror}")
        companions = self._companions
        with self._starting:
            if self._is_implied and companions.files is None and self.world_size > 1 and not self._is_finished:
                # What this rank leaves there is sent, though it may never log.
                companions.open_files(self._place(next(home.spool_roots(self.settings.env))))
        if companions.files is not None:
            companions.files.open()
        return str(path)

    @property
    def url(self) -> str | None:
        """The address of the run's page; None while no collector of this machine is known."""
        publisher = self._publisher
        if publisher is None:
            return None
        http = publisher.http
        if http is None and self.settings.mode == "online" and self.settings.address is None:
            # Right after `init` it is asked for here, and has not been looked for there.
            endpoint = home.read_endpoint(home.home_dir(self.settings.env))
            http = None if endpoint is None else endpoint.http
        return f"{http}/runs/{self.id}" if http else None

    def status(self) -> dict[str, Any]:
        """How this process stands with its collector, as far as is known here; never waits.

        Returns:
            `logged`, `acked`: events (records) of this process so far, and of them those known to be stored.
            `dropped`: those that could not be kept. `spool`, `spool_bytes`: where the rest lies. `connected`:
            whether a collector has answered. `url`, `http`: which one. `problem`: what is wrong, or empty.
        """
        return {
            "run": self.id,
            "rank": self.rank,
            "mode": self.settings.mode,
            "finished": self._is_finished,
            **(self._last_standing or standing(self._log, self._publisher)),
        }

    # What follows is for the rest of the package, not for users.

    def log_at(self, time_ns: int, data: Mapping[str, Any], step: int | None = None) -> None:
        """`log` of what happened at another time than now (Unix nanoseconds)."""
        self._log_slowly(data, step, time_ns)

    def note(self, time_ns: int, name: str, body: Mapping[str, Any]) -> None:
        """Keeps an object (protocol.md §5) that belongs to no step of its own: it stands at the newest one."""
        log = self._ready_log()
        if log is not None:
            log.append(events.pack(Kind.LOG, time_ns, log.step, {name: dict(body)}))

    def note_histograms(self, fields: Mapping[str, Any], arrivals: Arrivals) -> None:
        """`note` for many objects at once, and for those that are still on a device."""
        log = self._ready_log()
        if log is not None:
            step = max(0, log.step)
            log.append_fields(time.time_ns(), step, fields)
            if arrivals:
                log.pending.put(step, arrivals)

    def describe(
        self, *, name: str | None = None, notes: str | None = None, tags: tuple[str, ...] | None = None
    ) -> None:
        """Changes what the run is called, its notes or its tags; what is None stays."""
        self.name = self.name if name is None else name
        self.notes = self.notes if notes is None else notes
        self.tags = self.tags if tags is None else tags
        self._append(Kind.OPEN, {**self._opening(), "told": time.time_ns()})

    def _log_slowly(self, data: object, step: object, time_ns: int | None = None) -> None:
        """`log` for whatever is not a dict of plain numbers under known names."""
        try:
            log = self._ready_log()
            if log is not None:
                log_any(log, data, step, time_ns)
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(
                f"log:{type(error).__name__}", f"log() could not keep an event: {type(error).__name__}: {error}"
            )
