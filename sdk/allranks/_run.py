"""A run, as the process of one rank sees it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allranks import values
from allranks._config import Config, Summary, entries
from allranks._log import RankLog
from allranks._publisher import Publisher
from allranks._settings import RunSettings
from allranks._signals import is_from_handler
from allranks._warnings import say, warn_once
from allranks_bus import events, home, processes
from allranks_bus.errors import ProtocolError, SpoolError
from allranks_bus.events import Kind
from allranks_bus.version import __version__
from allranks_bus.wire import WRITER_ID_BYTES

# What only `init` and the end of a program need is imported by them: `import allranks` is in every program's start.
if TYPE_CHECKING:
    from allranks.facts import Facts
    from allranks.identity import Identity

FINISH_TIMEOUT_S = 5.0
# At the end of a program that did not call finish(): a collector on this machine takes over what is left.
EXIT_TIMEOUT_S = 0.25
SUMMARIES = ("last", "min", "max", "mean")
_MAX_TRACEBACK_CHARS = 16_384
_MAX_ARGV = 64


class Run:
    """One training job, seen from one of its processes. Nothing here raises into the training but for arguments that
    can never be right; everything may be called from any thread, and in a forked child.

    Attributes:
        id, project, group, name: the same in all ranks of the run.
        rank, world_size, local_rank: this process's place.
        config, summary: mappings whose changes are stored.
    """

    def __init__(
        self,
        identity: Identity,
        facts: Facts,
        settings: RunSettings,
        *,
        notes: str | None = None,
        tags: tuple[str, ...] = (),
        directory: str | None = None,
    ) -> None:
        self.id = identity.run
        self.project = identity.project
        self.group = identity.group
        self.name = identity.name
        self.rank = identity.rank
        self.world_size = identity.world_size
        self.local_rank = identity.local_rank
        self.notes = notes
        self.tags = tags
        self.identity = identity
        self.settings = settings
        self.config = Config(lambda changes: self._append(Kind.CONFIG, changes))
        self.summary = Summary(lambda changes: self._append(Kind.SUMMARY, changes))
        self._facts = facts
        self._directory = directory
        self._role = identity.role
        self._parent: bytes | None = None
        self._started_ns = time.time_ns()
        # None before start, after finish, and in a forked child until it logs.
        self._log: RankLog | None = None
        self._publisher: Publisher | None = None
        self._writer = b""
        self._is_finished = False
        self._failure: dict[str, str] | None = None
        self._last_status: dict[str, Any] | None = None
        self._starting = threading.RLock()

    def __repr__(self) -> str:
        return f"<allranks.Run {self.id} ({self.name}), rank {self.rank} of {self.world_size}>"

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
    def dir(self) -> str:
        """The run's directory: the same path on all ranks of a host, made if need be, without asking anybody."""
        path = (
            Path(self._directory).absolute() / self.id
            if self._directory
            else home.run_dir(self.id, self.settings.env)
        )
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            warn_once("dir", f"cannot make the run's directory {path}: {error.strerror}")
        return str(path)

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
                names it, and does not cost the values beside it.
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
        """
        with self._starting:
            if self._is_finished:
                warn_once("finish", "finish() was called again; the run had ended already")
                return
            self._end(exit_code, timeout)

    # What follows is for the rest of the package, not for users.

    def start(self, config: Any = None) -> None:
        """Opens the spool and starts the publisher; never raises."""
        with self._starting:
            if self.settings.mode == "disabled":
                self.config.update(entries(config), allow_val_change=True)
                return
            self._open()
        self.config.update(entries(config), allow_val_change=True)

    def record_failure(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Keeps an exception that ends the program, for the record that closes the run."""
        import traceback

        try:
            lines = "".join(traceback.format_exception(kind, error, trace))
            message = str(error)
        except Exception:  # an exception whose __str__ raises
            lines = message = "<unprintable>"
        self._failure = {
            "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "message": message[:_MAX_TRACEBACK_CHARS],
            "traceback": lines[-_MAX_TRACEBACK_CHARS:],
        }

    def finish_at_exit(self) -> None:
        """`finish` for a program that did not call it: leaves as soon as somebody else can ship what is left."""
        with self._starting:
            if not self._is_finished:
                is_embedded = self.settings.address is None
                self._end(None, EXIT_TIMEOUT_S if is_embedded else FINISH_TIMEOUT_S)

    def become_child(self) -> None:
        """In a forked child: lets go of the parent's spool and publisher; a writer of its own opens when it logs."""
        log, publisher = self._log, self._publisher
        self._log = self._publisher = None
        self._starting = threading.RLock()  # a thread that does not exist here may hold the old one
        if log is not None:
            log.abandon()
            self._parent = self._writer
            self._role = "child"
        if publisher is not None:
            publisher.abandon()
        self._failure = None

    def _open(self) -> None:
        self._writer = os.urandom(WRITER_ID_BYTES)
        identity = self._open_map()
        problems: list[str] = []
        for root in home.spool_roots(self.settings.env):
            try:
                identity["spool"] = str(root / self._writer.hex())
                self._log = RankLog(root, self._writer, identity, cap_bytes=self.settings.spool_cap_bytes)
                break
            except (SpoolError, ProtocolError) as error:
                problems.append(str(error))
        if self._log is None:
            warn_once("spool", f"nothing can be kept: {'; '.join(problems)}. Set ALLRANKS_SPOOL; training goes on")
            return
        if self.settings.mode == "online":
            publisher = Publisher(self._log, self._writer, self._beat, self.settings.address, self.settings.env)
            self._publisher = publisher
            publisher.start()

    def _open_map(self) -> dict[str, Any]:
        me, identity = processes.current(), self.identity
        optional: dict[str, Any] = {
            "local_rank": identity.local_rank,
            "node_rank": identity.node_rank,
            "group": self.group,
            "name": self.name,
            "notes": self.notes,
            "tags": list(self.tags),
            "parent": self._parent,
        }
        return {
            "run": self.id,
            "project": self.project,
            "launch": identity.launch,
            "rank": self.rank,
            "world_size": self.world_size,
            "role": self._role,
            "host": self._facts.hostname,
            "pid": me.pid,
            "pid_start": me.start,
            "boot_id": me.boot_id,
            "pid_ns": me.pid_ns,
            "launcher": identity.launcher,
            "started": self._started_ns,
            "python": ".".join(map(str, sys.version_info[:3])),
            "allranks": __version__,
            "argv": [str(argument)[:1024] for argument in sys.argv[:_MAX_ARGV]],
            "cwd": _cwd(),
            "destination": self._destination(),
            **{key: value for key, value in optional.items() if value is not None},
        }

    def _destination(self) -> str:
        """Where the spool is meant to go, for whoever finds it."""
        settings = self.settings
        if settings.mode == "offline":
            return "offline"
        return str(settings.address or f"embedded:{home.home_dir(settings.env)}")

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
        }

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
        """The log; a forked child's is opened here. None where nothing is kept, which has been said."""
        if self._log is None and self.settings.mode != "disabled":
            with self._starting:
                if self._is_finished:
                    warn_once("finished", f"the run {self.id} has ended: what is logged now is not kept")
                elif self._log is None and self._role == "child":
                    self._open()
        return self._log

    def _log_slowly(self, data: object, step: object) -> None:
        """`log` for whatever is not a dict of plain numbers under known names."""
        try:
            log = self._ready_log()
            if log is None:
                return
            flat = values.flatten(data)
            for key, reason in flat.problems:
                warn_once(f"value:{key}", f"log(): {key!r} is not stored: {reason}")
            given = self._whole_step(step)
            is_counted = given is None
            at = log.next_step() if given is None else given
            names = tuple(flat.numbers)
            if names and log.define(names):
                log.metrics(flat.numbers, at, is_counted)
            else:
                _append_in_parts(log, at, is_counted, flat.numbers)
            _append_in_parts(log, at, is_counted, flat.others)
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(
                f"log:{type(error).__name__}", f"log() could not keep an event: {type(error).__name__}: {error}"
            )

    def _whole_step(self, step: object) -> int | None:
        """The step that the program gave, if it is one."""
        if step is not None:
            try:
                number = int(step)  # type: ignore[call-overload]
                if number == step and -(2**63) <= number < 2**63:
                    return int(number)
            except Exception:
                pass  # whatever it is, it is no step
            warn_once("step", f"log(): step must be a whole number, not {step!r:.80}; the next one is used")
        return None

    def _end(self, exit_code: int | None, timeout: float) -> None:
        log, publisher = self._log, self._publisher
        if log is not None:
            end: dict[str, Any] = {"exit_code": exit_code}
            if self._failure is not None:
                end = {"exit_code": 1 if exit_code is None else exit_code, "exception": self._failure}
            log.try_again()
            log.report_drops()
            # Sealed, because other threads may go on logging: all that came before is waited for, and nothing after.
            log.seal(events.pack(Kind.CLOSE, time.time_ns(), end))
            is_stored = publisher is not None and publisher.finish(timeout)
            self._is_finished = True
            self._last_status = self.status()
            self._log = None
            if is_stored:
                log.remove()
            else:
                self._say_where(log, publisher)
                log.close()
        self._is_finished = True
        from allranks.identity import PARENT_VARIABLE, export_parent

        # A rank that is started later must not join a run that is over.
        if os.environ.get(PARENT_VARIABLE) == export_parent(self.identity, self._facts):
            del os.environ[PARENT_VARIABLE]

    def _say_where(self, log: RankLog, publisher: Publisher | None) -> None:
        if publisher is None:
            say(f"run {self.id}: offline; events are in {log.directory}: `allranks sync` ships them")
        elif self.settings.address is None and publisher.url:
            pass  # the embedded collector drains this spool by itself
        else:
            waiting = log.end - publisher.acked
            say(
                f"run {self.id}: no collector took the last {waiting:,} events in time; they are kept in "
                f"{log.directory}: `allranks sync` ships them"
            )


def _append_in_parts(log: RankLog, step: int, is_counted: bool, fields: Mapping[str, Any]) -> None:
    """Appends LOG records with `fields`, in as many as their size needs."""
    if not fields:
        return
    log.follow(step, is_counted)
    try:
        log.append(events.pack(Kind.LOG, time.time_ns(), step, dict(fields)))
    except ProtocolError:
        items = list(fields.items())
        if len(items) == 1:
            raise
        half = len(items) // 2
        _append_in_parts(log, step, is_counted, dict(items[:half]))
        _append_in_parts(log, step, is_counted, dict(items[half:]))


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return ""
