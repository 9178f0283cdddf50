"""A run, as the process of one rank sees it."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allranks._config import Config, Summary, entries, plain
from allranks._ending import FINISH_TIMEOUT_S, describe, end_log, end_map, say_where
from allranks._loading import load, undisturbed
from allranks._log import RankLog
from allranks._log_any import log_any
from allranks._opening import destination_of, open_log, open_map, scheduler_of, wrapper_of
from allranks._publisher import Publisher
from allranks._settings import RunSettings
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks_bus import cgroups, events, home
from allranks_bus.events import Kind
from allranks_bus.limits import WRITER_ID_BYTES

# What only `init` and the end of a program need is imported by them: `import allranks` is in every program's start.
if TYPE_CHECKING:
    from allranks._companions import Companion, RunPlace
    from allranks._device import Arrivals
    from allranks._files import RunFiles
    from allranks._sections import Section, Sections
    from allranks.facts import Facts
    from allranks.identity import Identity

# At the end of a program that did not call finish(): this user's collector brings in what is left.
EXIT_TIMEOUT_S = 0.1
# ... but only this process can read what is on its device.
DEVICE_TIMEOUT_S = 2.0
SUMMARIES = ("last", "min", "max", "mean")
ALERT_LEVELS = ("INFO", "WARN", "ERROR")
_MAX_ALERT_CHARS = 16_384
# Titles that may have numbers in them must not fill memory.
_MAX_PACED_ALERTS = 1000
_MAX_NAME_CHARS = 256
# What a log is accompanied by: imported where a fork waits for it.
_NEEDED = ("allranks._companions", "allranks._files", "allranks._console", "allranks._sections")
# A rank says what surrounds it when the program has begun its work.
_SURROUNDINGS_AFTER_S = 3.0


class Run:
    """One training job, seen from one of its processes. Nothing here raises into the training but for arguments that
    can never be right; everything may be called from any thread, and in a forked child.

    Attributes:
        id, project, group, name: the same in all ranks of the run.
        rank, world_size, local_rank: this process's place.
        config, summary: mappings whose changes are stored.
    """

    identity: Identity
    id: str
    project: str
    group: str | None
    name: str
    rank: int
    world_size: int
    local_rank: int | None

    def __init__(
        self,
        identity: Identity,
        facts: Facts,
        settings: RunSettings,
        *,
        notes: str | None = None,
        tags: tuple[str, ...] = (),
        directory: str | None = None,
        is_implied: bool = False,
        parent: bytes | None = None,
    ) -> None:
        self._take(identity)
        self.notes = notes
        self.tags = tags
        self.settings = settings
        self.config = Config(lambda changes: self._record(Kind.CONFIG, changes))
        self.summary = Summary(lambda changes: self._record(Kind.SUMMARY, changes))
        self._facts = facts
        self._directory = directory
        # Nobody has called `init` for it, here or where it comes from.
        self._is_implied = is_implied
        # It came here by a fork or a pickle: its writer is opened when something is logged.
        self._is_inherited = parent is not None
        self._parent = parent
        self._started_ns = time.time_ns()
        # None before start, after finish, and in a forked child until it logs.
        self._log: RankLog | None = None
        self._publisher: Publisher | None = None
        self._files: RunFiles | None = None
        self._companions: tuple[Companion, ...] = ()
        self._sections: Sections | None = None
        # When this rank is to say what surrounds it (monotonic seconds).
        self._surroundings_at = float("inf")
        self._writer = b""
        self._exported = ""
        # What init began is done: an interrupt may come in the middle of it.
        self._is_begun = False
        # Nothing more is kept; and all is done for what was: an interrupt may come in the middle of that too.
        self._is_finished = False
        self._is_over = False
        self._failure: dict[str, str] | None = None
        self._last_status: dict[str, Any] | None = None
        # Where kills for want of memory are counted; empty where nowhere, None before the first beat.
        self._oom_file: str | None = None
        # By title, when an alert was last kept that may not come again at once.
        self._alerted: dict[str, float] = {}
        self._starting = threading.RLock()

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
        if error is not None and kind is not None:
            self.record_failure(kind, error, trace)
        self.finish()

    @property
    def is_finished(self) -> bool:
        """True after `finish`."""
        return self._is_finished

    @property
    def is_started(self) -> bool:
        """True while what is logged here is kept: after `init`, or in a rank that joined by logging."""
        return self._log is not None or (self.role == "child" and not self._is_finished)

    @property
    def role(self) -> str:
        """`rank`, or `child` in a process that works for a rank."""
        return self.identity.role

    @property
    def dir(self) -> str:
        """The run's directory: the same path on all ranks of a host, made if need be, without asking anybody."""
        path = self._directory_path()
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            warn_once("dir", f"cannot make the run's directory {path}: {error.strerror}")
        with self._starting:
            if self._is_implied and self._files is None and self.world_size > 1 and not self._is_finished:
                # What this rank leaves there is sent, though it may never log.
                self._files = self._new_files(next(home.spool_roots(self.settings.env)))
        if self._files is not None:
            self._files.open()
        return str(path)

    def _directory_path(self) -> Path:
        if self._directory:
            return Path(self._directory).absolute() / self.id
        return home.run_dir(self.id, self.settings.env)

    @property
    def url(self) -> str | None:
        """The address of the run's page; None while no collector of this machine is known."""
        publisher = self._publisher
        return f"{publisher.http}/runs/{self.id}" if publisher is not None and publisher.http else None

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

    def save(self, glob: str | os.PathLike[str], base_path: str | None = None, policy: str = "live") -> list[str]:
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
        if self._files is None:
            warn_once("save", f"save({str(glob)!r}): nothing is kept of this run here, so no file is either")
            return []
        return self._files.save(os.fspath(glob), base_path, policy)

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
        title, now = str(title)[:_MAX_ALERT_CHARS], time.monotonic()
        if isinstance(wait, int | float) and wait > 0:
            if now - self._alerted.get(title, float("-inf")) < wait:
                return
            if len(self._alerted) >= _MAX_PACED_ALERTS:
                self._alerted.clear()
            self._alerted[title] = now
        word = str(getattr(level, "value", level)).upper()
        if word not in ALERT_LEVELS:
            warn_once("alert", f"alert(): level is one of {', '.join(ALERT_LEVELS)}, not {level!r:.40}; INFO is used")
            word = "INFO"
        body = {"title": title, "text": str(text)[:_MAX_ALERT_CHARS], "level": word}
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
        sections = self._sections
        return (self._open_sections() if sections is None else sections).section(name)

    def expect(self, seconds: float) -> None:
        """Announces that no step may come for so many seconds from now (a first compile, a checkpoint): nobody calls
        this rank stalled meanwhile. The next step ends it."""
        (self._sections or self._open_sections()).expect(seconds)

    def status(self) -> dict[str, Any]:
        """How this process stands with its collector, as far as is known here; never waits.

        Returns:
            `logged`, `acked`: events (records) of this process so far, and of them those known to be stored.
            `dropped`: those that could not be kept. `spool`, `spool_bytes`: where the rest lies. `connected`:
            whether a collector has answered. `url`, `http`: which one. `problem`: what is wrong, or empty.
        """
        if self._last_status is not None:
            return dict(self._last_status)
        log, publisher = self._log, self._publisher
        return {
            "run": self.id,
            "rank": self.rank,
            "mode": self.settings.mode,
            "finished": self._is_finished,
            "logged": log.end if log else 0,
            "acked": publisher.acked if publisher else 0,
            "resends": publisher.resends if publisher else 0,
            "dropped": log.refused if log else 0,
            "spool": str(log.directory) if log else None,
            "spool_bytes": log.held_bytes if log else 0,
            "connected": bool(publisher and publisher.is_heard),
            "url": publisher.url if publisher else None,
            "http": publisher.http if publisher else None,
            "problem": (log.problem if log else "") or (publisher.refusal if publisher else ""),
        }

    def finish(self, exit_code: int | None = None, timeout: float = FINISH_TIMEOUT_S) -> None:
        """Ends this process's part of the run: waits until all is stored, but no longer than `timeout` seconds.

        What is not stored by then stays in the spool; one line says where.

        Args:
            exit_code: other than 0 says that the training failed. None means 0, whatever becomes of the process
                afterwards; but while an exception is on its way (`finally: run.finish()`), the process's end tells.
        """
        with self._starting:
            if self._is_over:
                warn_once("finish", "finish() was called again; the run had ended already")
            else:
                if exit_code is None and self._failure is None and sys.exc_info()[0] is None:
                    exit_code = 0
                self._end(exit_code, timeout)

    # What follows is for the rest of the package, not for users.

    def start(self, config: Any = None) -> None:
        """Opens the spool and starts the publisher; never raises."""
        if self.role == "child":
            # A spawned child that runs the main module again: its log is opened if it logs at all, and the
            # configuration is known from its parent.
            self.config.restore({str(key): plain(value) for key, value in entries(config).items()})
            self._is_begun = True
            return
        with self._starting:
            if self._publisher is not None:  # it had joined by logging
                self._append(Kind.OPEN, self._opening())
            elif self.settings.mode != "disabled":
                self._open()
                self._record_settings()
        self.export()
        self._is_begun = True
        self.config.update(entries(config), allow_val_change=True)
        if self._publisher is not None:
            self._publisher.begin()

    def observe(self, pid: int) -> None:
        """Has the figures of another process stored in the place of this one's: of a command that it wraps."""
        if self._publisher is not None:
            self._publisher.observe(pid)

    def export(self) -> None:
        """Lets the processes that are started from here find the run."""
        from allranks.parents import PARENT_VARIABLE, export_parent

        self._exported = os.environ[PARENT_VARIABLE] = export_parent(self.identity, self._facts)

    @property
    def is_begun(self) -> bool:
        """True where `start` has come to its end."""
        return self._is_begun

    @property
    def is_implied(self) -> bool:
        """True where nobody has called `init` for it yet."""
        return self._is_implied

    @property
    def is_inherited(self) -> bool:
        """True where it came to this process by a fork or a pickle."""
        return self._is_inherited

    def announce(
        self,
        identity: Identity,
        facts: Facts,
        settings: RunSettings,
        notes: str | None,
        tags: tuple[str, ...],
        directory: str | None,
        *,
        is_implied: bool,
    ) -> None:
        """Takes what the program has said of it by now; what is None or empty stays."""
        self._take(identity)
        self._facts, self.settings = facts, settings
        self.notes = self.notes if notes is None else notes
        self.tags = tags or self.tags
        self._directory = self._directory if directory is None else directory
        self._is_implied = is_implied

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

    def record_failure(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Keeps an exception that ends the program, for the record that closes the run."""
        self._failure = describe(kind, error, trace)

    def forget_failure(self) -> None:
        """The program has gone on after the exception that was recorded."""
        self._failure = None

    def finish_at_exit(self, exit_code: int | None = None, *, waits: bool = True) -> None:
        """`finish` for a program that did not call it, or was interrupted in it.

        It leaves as soon as somebody else can ship what is left.

        Args:
            exit_code: None where it is not known yet.
            waits: False where somebody does not want to wait even for that.
        """
        with self._starting:
            if not self._is_over:
                if self._log is not None and waits:
                    self._log.pending.finish(time.monotonic() + DEVICE_TIMEOUT_S)
                is_embedded = self.settings.address is None
                timeout = EXIT_TIMEOUT_S if is_embedded else FINISH_TIMEOUT_S
                self._end(exit_code, timeout if waits else 0.0, is_exit=True)

    def become_child(self) -> None:
        """In a forked child: lets go of the parent's spool and publisher; a writer of its own opens when it logs."""
        log, publisher = self._log, self._publisher
        self._log = self._publisher = None
        self._starting = threading.RLock()  # a thread that does not exist here may hold the old one
        if log is not None:
            log.abandon()
        # Begun, or about to be: a thread that does not exist here may be in the middle of `init`.
        if log is not None or not (self._is_implied or self._is_finished):
            self._parent = self._writer
            self._is_inherited = True
            self.identity = dataclasses.replace(self.identity, role="child")
        if publisher is not None:
            publisher.abandon()
        files = () if self._files is None else (self._files,)
        sections = () if self._sections is None else (self._sections,)
        for companion in {*self._companions, *files, *sections}:
            companion.abandon()
        self._companions, self._files, self._sections = (), None, None
        self._surroundings_at = float("inf")
        self._failure = None

    def _take(self, identity: Identity) -> None:
        self.identity = identity
        self.id = identity.run
        self.project = identity.project
        self.group = identity.group
        self.name = identity.name
        self.rank = identity.rank
        self.world_size = identity.world_size
        self.local_rank = identity.local_rank

    def _join(self) -> bool:
        """Opens the log of a process that has not called `init`; False for one that is nobody's rank.

        Its place is looked for now: torch.distributed may have come up since.
        """
        from allranks.identity import identify

        is_child = self.role == "child"
        known = self.id if is_child else None
        who, self._facts = identify(project=self.project, group=self.group, name=self.name, id=known)
        if is_child:
            self._take_place_of_child(who)
        elif who.run == self.id and who.launcher != "single":
            self._take(who)
        else:
            return False
        self._open()
        if self._is_implied:
            self._record_settings()
        if self.role == "rank":
            self.export()
        if self._publisher is not None:
            self._publisher.begin()
        return True

    def _take_place_of_child(self, who: Identity) -> None:
        """Takes the place of a process that was handed this run: it may be a rank, where its maker was none."""
        mine = self.identity
        if who.launcher == "single":
            return
        role = "child" if (who.rank, who.world_size) == (mine.rank, mine.world_size) else who.role
        self._take(dataclasses.replace(who, run=mine.run, launch=mine.launch, role=role))

    def _open(self) -> None:
        from allranks import _current

        _current.watch_end_of_child()
        for name in _NEEDED:
            load(name)
        if self._log is None:
            self._writer = os.urandom(WRITER_ID_BYTES)
            self._log = open_log(self._writer, self._opening(), self.settings)
        log = self._log
        if log is None:
            return
        self._accompany(log, log.directory.parent)
        if self.role == "rank":
            self._surroundings_at = time.monotonic() + _SURROUNDINGS_AFTER_S
        publisher = Publisher(
            log,
            self._writer,
            self._beat,
            self._tick,
            self.settings.address,
            self.settings.env,
            is_offline=self.settings.mode == "offline",
        )
        publisher.start()
        self._publisher = publisher

    def _accompany(self, log: RankLog, root: Path) -> None:
        """Makes what lives beside the log."""
        from allranks._console import capture

        if self._files is None:
            self._files = self._new_files(root)
        console = capture(self._place(root), self.settings)
        self._companions = (
            log.pending,
            self._files,
            self._open_sections(),
            *([console] if console is not None else []),
        )

    def _open_sections(self) -> Sections:
        from allranks._sections import Sections

        if self._sections is None:
            self._sections = Sections()
        self._sections.log = self._log
        return self._sections

    def _new_files(self, root: Path) -> RunFiles:
        from allranks._files import RunFiles

        return RunFiles(self._place(root))

    def _place(self, root: Path) -> RunPlace:
        from allranks._companions import RunPlace

        return RunPlace(
            run=self.id,
            project=self.project,
            host=self._facts.hostname,
            rank=self.rank,
            world_size=self.world_size,
            launch=self.identity.launch,
            writer=self._writer,
            role=self.role,
            directory=self._directory_path(),
            spool_root=root,
            destination=destination_of(self.settings),
            env=self.settings.env,
        )

    def _tick(self) -> None:
        """Called by the publisher's thread, three times a second."""
        log = self._log
        if time.monotonic() >= self._surroundings_at and log is not None:
            self._surroundings_at = float("inf")
            surroundings = load("allranks._surroundings").Surroundings(log)
            self._companions = (*self._companions, surroundings)
        self._each(lambda companion: companion.tick())

    def _each(self, action: Callable[[Companion], object]) -> None:
        """Asks each companion; what goes wrong in one must cost neither the training nor the others."""
        for companion in self._companions:
            try:
                action(companion)
            except Exception as error:
                if is_from_handler(error):
                    raise
                name = type(companion).__name__
                warn_once(f"companion:{name}", f"{name.lower()}: {type(error).__name__}: {error}; training goes on")

    def _opening(self) -> dict[str, Any]:
        told = {
            "group": self.group,
            "name": self.name,
            "notes": self.notes,
            "tags": list(self.tags),
            "parent": self._parent or None,
            "implied": self._is_implied or None,
            "started": self._started_ns,
            "destination": destination_of(self.settings),
            "scheduler": scheduler_of(self.settings.env),
            "wrapper": wrapper_of(self.settings.env, self.id),
        }
        return open_map(self.identity, self._facts, told)

    def _beat(self) -> dict[str, Any]:
        log = self._log
        return {
            "run": self.id,
            "project": self.project,
            "rank": self.rank,
            "host": self._facts.hostname,
            "pid": os.getpid(),
            "step": log.step if log else -1,
            "dropped": log.refused if log else 0,
            **(self._sections.status() if self._sections is not None else {}),
            **self._oom_kills(),
        }

    def _oom_kills(self) -> dict[str, int]:
        """How often the kernel has killed for want of memory where this process is counted; empty if unknown."""
        if self._oom_file is None:
            self._oom_file = cgroups.find_oom_file(os.getpid()) or ""
        count = cgroups.read_oom_kills(self._oom_file) if self._oom_file else None
        return {} if count is None else {"oom": count}

    def _record(self, kind: Kind, changes: dict[str, Any]) -> None:
        """Appends a change of config or summary; before `init` they wait for it."""
        if not self._is_implied or self._log is not None:
            self._append(kind, changes)

    def _record_settings(self) -> None:
        """Appends what config and summary were told before there was a log."""
        for kind, mapping in ((Kind.CONFIG, self.config), (Kind.SUMMARY, self.summary)):
            if mapping:
                self._append(kind, dict(mapping))

    def _append(self, kind: Kind, *fields: Any) -> None:
        """Appends an event that is not of the hot path; never raises."""
        try:
            log = self._ready_log()
            if log is not None:
                log.append(events.pack(kind, time.time_ns(), *fields))
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(f"{kind.name}", f"a {kind.name.lower()} event could not be kept: {error}")

    def _ready_log(self) -> RankLog | None:
        """The log; that of a forked child, or of a rank that never called `init`, is opened here.

        None where nothing is kept, which has been said.
        """
        if self._log is None and self.settings.mode != "disabled":
            with self._starting:
                if self._is_finished:
                    warn_once("finished", f"the run {self.id} has ended: what is logged now is not kept")
                elif self._log is None and (self.role == "child" or self._is_implied):
                    with undisturbed():
                        has_joined = self._join()
                    if not has_joined:
                        warn_once("no run", "log() was called before init(): nothing is kept")
        return self._log

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

    def _end(self, exit_code: int | None, timeout: float, *, is_exit: bool = False) -> None:
        """Ends it; with `is_exit` as the program does, whose last words are still to come."""
        deadline = time.monotonic() + timeout
        if is_exit and self.settings.address is None:
            self._each(lambda companion: companion.leave())
        self._end_log(exit_code, timeout, is_exit=is_exit)
        if not is_exit:
            self._each(lambda companion: companion.finish(deadline))
        elif self.settings.address is not None:
            if self._files is not None:
                self._files.finish(deadline)
            self._each(lambda companion: companion.leave())
        elif not self._companions and self._files is not None:  # of a rank that never logged
            self._files.leave()
        self._is_finished = self._is_over = True
        from allranks.parents import PARENT_VARIABLE

        # A rank that is started later must not join a run that is over.
        if self._exported and os.environ.get(PARENT_VARIABLE) == self._exported:
            del os.environ[PARENT_VARIABLE]

    def _end_log(self, exit_code: int | None, timeout: float, *, is_exit: bool) -> None:
        log, publisher = self._log, self._publisher
        if log is not None:
            if self._sections is not None:
                self._sections.write()
            leaves = is_exit and self.settings.address is None
            is_stored = end_log(log, publisher, end_map(exit_code, self._failure), timeout, leaves=leaves)
            self._is_finished = True
            self._last_status = self.status()
            self._log = None
            if is_stored:
                log.remove()
            else:
                say_where(self.id, log, publisher, is_offline=self.settings.mode == "offline")
                log.close()
