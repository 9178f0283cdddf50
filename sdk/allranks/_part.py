"""A process's part in a run: its log and what goes with it, from its beginning to its end.

It begins with `init`; in a process that only has the run (a rank that leaves `init` to another, a forked child, one
that a pickle was sent to) when something is logged. It ends with `finish`, or with the program.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from allranks._config import Config, Summary, entries, plain
from allranks._ending import FINISH_TIMEOUT_S, describe, end_log, end_map, plain_code, say_where, standing
from allranks._loading import load, undisturbed
from allranks._log import RankLog
from allranks._opening import destination_of, open_log, open_map, scheduler_of, wrapper_of
from allranks._publisher import Publisher
from allranks._settings import RunSettings
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks_bus import events, home
from allranks_bus.errors import ProtocolError
from allranks_bus.events import Kind
from allranks_bus.limits import WRITER_ID_BYTES

# What only `init` and the end of a program need is imported by them: `import allranks` is in every program's start.
if TYPE_CHECKING:
    from allranks._place import RunPlace
    from allranks.facts import Facts
    from allranks.identity import Identity
    from allranks_bus.cgroups import OomCount

# At the end of a program that did not call finish(): this user's collector brings in what is left.
EXIT_TIMEOUT_S = 0.1
# ... but only this process can read what is on its device.
DEVICE_TIMEOUT_S = 2.0
# Of a name, in a warning.
_MAX_TOLD_CHARS = 80
# What a log is accompanied by: imported where a fork waits for it.
_NEEDED = ("allranks._files", "allranks._console", "allranks._sections")


class RunPart:
    """What `Run` stands on: this process's log, publisher and companions, and how far all that has come.

    Nothing here raises into the training. Everything may be called from any thread, and in a forked child.

    Attributes:
        identity: this process's place; the next seven are taken from it.
        notes, tags: for people.
        settings: how the run behaves in this process.
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
        from allranks._companions import Companions

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
        self._companions = Companions()
        self._writer = b""
        self._exported = ""
        # What init began is done: an interrupt may come in the middle of it.
        self._is_begun = False
        # Nothing more is kept; and all is done for what was: an interrupt may come in the middle of that too.
        self._is_finished = False
        self._is_over = False
        self._failure: dict[str, str] | None = None
        # How it stood with the collector when its log ended.
        self._last_standing: dict[str, Any] | None = None
        # Kills for want of memory where this process is counted; None before the first beat.
        self._oom: OomCount | None = None
        self._starting = threading.RLock()

    @property
    def is_begun(self) -> bool:
        """True where `start` has come to its end."""
        return self._is_begun

    @property
    def is_finished(self) -> bool:
        """True after `finish`."""
        return self._is_finished

    @property
    def is_started(self) -> bool:
        """True while what is logged here is kept: after `init`, or in a rank that joined by logging."""
        return self._log is not None or (self.role == "child" and not self._is_finished)

    @property
    def is_implied(self) -> bool:
        """True where nobody has called `init` for it yet."""
        return self._is_implied

    @property
    def is_inherited(self) -> bool:
        """True where it came to this process by a fork or a pickle."""
        return self._is_inherited

    @property
    def role(self) -> str:
        """`rank`, or `child` in a process that works for a rank."""
        return self.identity.role

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

    def record_failure(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Keeps an exception that ends the program, for the record that closes the run."""
        self._failure = describe(kind, error, trace)

    def forget_failure(self) -> None:
        """The program has gone on after the exception that was recorded."""
        self._failure = None

    def finish(self, exit_code: int | None = None, timeout: float | None = FINISH_TIMEOUT_S) -> None:
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
                self._end(plain_code(exit_code), FINISH_TIMEOUT_S if timeout is None else timeout)

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
        self._companions.abandon()
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
                        warn_once(
                            "no run",
                            "log() was called before init(): nothing is kept (a spawned process is handed its run, "
                            "as an argument, or calls init() for one of its own)",
                        )
        return self._log

    def _join(self) -> bool:
        """Opens the log of a process that has not called `init`; False for one that is nobody's rank.

        Its place is looked for now: torch.distributed may have come up since.
        """
        from allranks.identity import identify, joining

        known = self.id if self.role == "child" else None
        who, self._facts = identify(project=self.project, group=self.group, name=self.name, id=known)
        me = joining(self.identity, who)
        if me is None:
            return False
        if me is not self.identity:  # else the run may be called otherwise by now
            self._take(me)
        self._open()
        if self._is_implied:
            self._record_settings()
        if self.role == "rank":
            self.export()
        if self._publisher is not None:
            self._publisher.begin()
        return True

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
        try:
            self._companions.join(log, self._place(log.directory.parent), self.settings)
            publisher = Publisher(
                log,
                self._writer,
                self._beat,
                self._companions.tick,
                self.settings.address,
                self.settings.env,
                is_offline=self.settings.mode == "offline",
            )
            publisher.start()
            self._publisher = publisher
        except Exception as error:  # a job that may have no more threads, or files
            if is_from_handler(error):
                raise
            why = f"{type(error).__name__}: {error}"
            warn_once("publisher", f"nothing is sent from here ({why}); events are kept in {log.directory}")

    def _place(self, root: Path) -> RunPlace:
        from allranks._place import RunPlace

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

    def _directory_path(self) -> Path:
        if self._directory:
            return Path(self._directory).absolute() / self.id
        return home.run_dir(self.id, self.settings.env)

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
        kills = self._oom_count().read()
        return {
            "run": self.id,
            "project": self.project,
            "rank": self.rank,
            "host": self._facts.hostname,
            "pid": os.getpid(),
            "step": log.step if log else -1,
            "dropped": log.refused if log else 0,
            **self._companions.status(),
            **({} if kills is None else {"oom": kills}),
        }

    def _oom_count(self) -> OomCount:
        if self._oom is None:
            count: OomCount = load("allranks_bus.cgroups").OomCount(os.getpid())
            self._oom = count
        return self._oom

    def _record(self, kind: Kind, changes: dict[str, Any]) -> None:
        """Appends a change of config or summary; before `init` they wait for it."""
        if not self._is_implied or self._log is not None:
            self._append_entries(kind, changes)

    def _record_settings(self) -> None:
        """Appends what config and summary were told before there was a log."""
        for kind, mapping in ((Kind.CONFIG, self.config), (Kind.SUMMARY, self.summary)):
            if mapping:
                self._append_entries(kind, dict(mapping))

    def _append_entries(self, kind: Kind, entries_: dict[str, Any]) -> None:
        """Appends a change in as many events as its size needs; an entry that is too large alone is named."""
        try:
            log = self._ready_log()
            if log is not None:
                log.append(events.pack(kind, time.time_ns(), entries_))
        except ProtocolError as error:
            items = list(entries_.items())
            if len(items) == 1:
                name = items[0][0][:_MAX_TOLD_CHARS]
                warn_once(f"{kind.name}:{name}", f"{kind.name.lower()} {name!r} could not be kept: {error}")
                return
            half = len(items) // 2
            self._append_entries(kind, dict(items[:half]))
            self._append_entries(kind, dict(items[half:]))
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once(f"{kind.name}", f"a {kind.name.lower()} event could not be kept: {error}")

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

    def _end(self, exit_code: int | None, timeout: float, *, is_exit: bool = False) -> None:
        """Ends it; with `is_exit` as the program does, whose last words are still to come."""
        deadline = time.monotonic() + timeout
        leaves = is_exit and self.settings.address is None
        if leaves:
            self._companions.leave()
        self._end_log(exit_code, timeout, leaves=leaves)
        if not is_exit:
            self._companions.finish(deadline)
        elif not leaves:
            if self._companions.files is not None:
                self._companions.files.finish(deadline)
            self._companions.leave()
        self._is_finished = self._is_over = True
        from allranks.parents import PARENT_VARIABLE

        # A rank that is started later must not join a run that is over.
        if self._exported and os.environ.get(PARENT_VARIABLE) == self._exported:
            del os.environ[PARENT_VARIABLE]

    def _end_log(self, exit_code: int | None, timeout: float, *, leaves: bool) -> None:
        log, publisher = self._log, self._publisher
        if log is None:
            return
        if self._companions.sections is not None:
            self._companions.sections.write()
        is_stored = end_log(log, publisher, end_map(exit_code, self._failure), timeout, leaves=leaves)
        self._is_finished = True
        self._last_standing = standing(log, publisher)
        self._log = None
        if is_stored:
            log.remove()
        else:
            say_where(self.id, log, publisher, is_offline=self.settings.mode == "offline")
            log.close()
