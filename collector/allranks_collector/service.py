"""The collector as a process: it opens everything in order, runs it in one task group, and ends in named steps."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import uvicorn

from allranks_bus import home as homes
from allranks_bus import processes
from allranks_bus.errors import AllranksError
from allranks_bus.home import Endpoint
from allranks_bus.launch import release_start_lock
from allranks_bus.version import PROTOCOL_VERSION, __version__
from allranks_collector.alerts.desk import AlertDesk
from allranks_collector.alerts.targets import targets_of
from allranks_collector.api import ApiContext, create_app
from allranks_collector.drainer import Drainer
from allranks_collector.files import FileStore
from allranks_collector.listening import address_of, bracketed, open_http, open_sockets
from allranks_collector.live import Hub
from allranks_collector.log_limit import LineLimit
from allranks_collector.outbox_drainer import OutboxDrainer
from allranks_collector.pace import Patience
from allranks_collector.pipeline import Pipeline
from allranks_collector.queries import LiveStats
from allranks_collector.retention import runs_to_remove
from allranks_collector.settings import Settings, load_settings
from allranks_collector.store import Store

logger = logging.getLogger("allranks_collector")

LOCK_FILE = "collector.lock"
_IDLE_LOOK_S = 0.5
_REMOVAL_LOOK_S = 1.0
_RETENTION_EVERY_S = 600.0
_HTTP_GRACE_S = 2.0
_DRAIN_GRACE_S = 10.0
_LAST_LOOK_S = 8.0
_DESCRIPTORS = 65_536


class AlreadyRunning(AllranksError):
    """Another collector has this home."""

    def __init__(self, home: Path) -> None:
        endpoint = homes.read_endpoint(home)
        who = f"pid {endpoint.pid}, {endpoint.http}" if endpoint else "it is starting, or does not answer"
        super().__init__(f"a collector runs already with the home {home} ({who})")


class Collector:
    """A running collector; also what the API asks about it (`LiveView`).

    Args:
        embedded: it was started by `init` for this user: it takes free ports where the usual ones are in use, and
            ends when it is idle.
    """

    def __init__(self, settings: Settings, *, embedded: bool) -> None:
        self.settings = settings
        self.embedded = embedded
        self.hub = Hub()
        self.started = time.time()
        self._stopping = anyio.Event()

    async def run(self) -> None:
        """Serves until a signal, idleness, or cancellation."""
        settings = self.settings
        async with contextlib.AsyncExitStack() as opened:
            opened.enter_context(_only_one(settings.home))
            _raise_descriptor_limit()
            self.store = opened.enter_context(
                Store.open(settings.database, memory_limit_mb=settings.memory_limit_mb, threads=settings.threads)
            )
            self._database_inode = settings.database.stat().st_ino
            last = homes.last_endpoint(settings.home)
            self.sockets = await opened.enter_async_context(open_sockets(settings, may_move=self.embedded, last=last))
            self.address = address_of(self.sockets)
            http = opened.enter_context(contextlib.closing(open_http(settings, may_move=self.embedded, last=last)))
            self.http = f"http://{bracketed(settings.host)}:{http.getsockname()[1]}"
            self.alerts = AlertDesk(
                self.store,
                targets_of(settings.alert_targets, settings.alert_command),
                rules=settings.alert_rules,
                interval_s=settings.alert_interval_s,
                no_data_s=settings.alert_no_data_s,
                page=self.http,
            )
            self.pipeline = Pipeline(
                self.store,
                self.sockets,
                FileStore(
                    settings.files,
                    reserve_bytes=None if settings.files_reserve_mb is None else settings.files_reserve_mb << 20,
                    versions=settings.file_versions,
                ),
                patience=Patience(
                    settings.heartbeat_timeout_s, settings.dead_after_s, settings.stall_min_s, settings.stall_factor
                ),
                commit_interval_s=settings.commit_interval_s,
                max_pending_bytes=settings.max_pending_mb * 1024 * 1024,
                publish=self.hub.publish,
                max_file_bytes=None if settings.max_file_mb is None else settings.max_file_mb * 1024 * 1024,
                bar_history=settings.bar_history,
                alerts=self.alerts,
            )
            await self._serve(http)

    async def _serve(self, http: socket.socket) -> None:
        server = _Server(
            uvicorn.Config(
                create_app(
                    ApiContext(
                        self.store, self, self.settings, self._remove_run, self.pipeline.stacks.ask, self.alerts.test
                    )
                ),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=int(_HTTP_GRACE_S),
            )
        )
        settings = self.settings
        drainer = Drainer(
            self._spool_roots(),
            self.address,
            accepts=self._is_meant_for_here,
            is_alive=self.pipeline.watch.is_watched,
        )
        self.outboxes = OutboxDrainer(
            self._spool_roots(),
            self.address,
            accepts=lambda destination: self._is_meant_for_here({"destination": destination}),
        )
        async with anyio.create_task_group() as inner:
            await self.alerts.resume()
            await inner.start(self.pipeline.run)
            async with anyio.create_task_group() as outer:
                outer.start_soon(server.serve, [http])
                outer.start_soon(self._await_signals)
                outer.start_soon(self._await_idle)
                outer.start_soon(self._await_removal)
                if settings.drain_orphans:
                    outer.start_soon(drainer.run)
                    outer.start_soon(self.outboxes.run)
                outer.start_soon(self._keep_retention)
                outer.start_soon(self.alerts.run, self.pipeline.keep_event)
                with self._announced():
                    await self._stopping.wait()
                # Step 1: no more viewers, so that their streams end, and then HTTP.
                logger.info("ending: HTTP")
                drainer.stop()
                self.hub.close()
                server.should_exit = True
                with anyio.move_on_after(_HTTP_GRACE_S + 1):
                    await server.ended.wait()
                # Step 2: the watch for what was left, and whatever it is at.
                logger.info("ending: watch")
                outer.cancel_scope.cancel()
            # Step 3: what writers left that ended a moment ago; first their events, which make their runs known.
            if settings.drain_orphans:
                began = time.monotonic()
                logger.info("ending: spools")
                await drainer.last_look(_LAST_LOOK_S)
                # Step 4: and their files, in the time that is left.
                logger.info("ending: files that were left")
                await self.outboxes.last_look(_LAST_LOOK_S - (time.monotonic() - began))
            # Step 5: no more messages; what has been received is stored.
            logger.info("ending: events")
            inner.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_DRAIN_GRACE_S):
            await self.pipeline.drain()
        # Step 6, by the exit stack: the sockets, the store (which checkpoints), the lock.
        logger.info("ending: store")

    def stop(self) -> None:
        """Begins the end."""
        self._stopping.set()

    @contextlib.contextmanager
    def _announced(self) -> Generator[None]:
        """Tells everybody on this machine where this collector listens, for as long as it does."""
        me = processes.current()
        homes.write_endpoint(
            self.settings.home,
            Endpoint(
                url=str(self.address),
                http=self.http,
                pid=me.pid,
                pid_start=me.start,
                instance=self.store.instance.hex(),
                version=__version__,
                started=self.started,
            ),
        )
        release_start_lock()
        logger.info("allranks %s listens: data %s, dashboard %s", __version__, self.address, self.http)
        try:
            yield
        finally:
            homes.remove_endpoint(self.settings.home, me.pid)

    # -- tasks -----------------------------------------------------------------------------------------------------

    async def _await_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("received %s", signal.Signals(number).name)
                self.stop()

    async def _await_idle(self) -> None:
        idle_exit_s = self.settings.idle_exit_s
        if idle_exit_s is None:
            return
        busy_at = time.monotonic()
        while True:
            await anyio.sleep(min(_IDLE_LOOK_S, idle_exit_s))
            now = time.monotonic()
            busy = self.pipeline.watch.live_writers or self.pipeline.pending_bytes or self.hub.viewers
            if busy or self.pipeline.files.is_busy or self.outboxes.is_busy or self.alerts.is_busy:
                busy_at = now
            elif now - busy_at >= idle_exit_s:
                logger.info("nobody writes and nobody looks on: ending")
                self.stop()

    async def _await_removal(self) -> None:
        while not self._is_removed():
            await anyio.sleep(_REMOVAL_LOOK_S)
        logger.error("the database %s has been removed: ending", self.settings.database)
        self.stop()

    def _is_removed(self) -> bool:
        """Whether the database lies there no more: whatever came into it now would be gone with this process."""
        try:
            return self.settings.database.stat().st_ino != self._database_inode
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def _is_meant_for_here(self, identity: Mapping[str, Any]) -> bool:
        if self._is_removed():  # somebody else's by now
            return False
        destination = str(identity.get("destination", ""))
        if self.embedded:
            return destination == f"embedded:{self.settings.home}"
        return destination != "offline" and not destination.startswith("embedded:")

    def _spool_roots(self) -> tuple[Path, ...]:
        if self.embedded:
            # Wherever this user's writers may have found room.
            env = {**os.environ, "ALLRANKS_HOME": str(self.settings.home)}
            return tuple(dict.fromkeys((self.settings.spool, *homes.spool_roots(env))))
        return (self.settings.spool,)

    async def _keep_retention(self) -> None:
        keep_days = self.settings.keep_days
        if keep_days is None:
            return
        while True:
            for run in await anyio.to_thread.run_sync(runs_to_remove, self.store, keep_days):
                logger.info("removing run %d: it ended more than %g days ago", run, keep_days)
                await self.pipeline.remove_run(run)
            await anyio.sleep(_RETENTION_EVERY_S)

    # -- what the API asks (LiveView) --------------------------------------------------------------------------------

    def last_seen(self, writer: int) -> int | None:
        return self.pipeline.watch.heard_ns(writer)

    def arriving(self, run_id: str) -> list[dict[str, Any]]:
        return self.pipeline.files.arriving(run_id)

    def series_stats(self) -> LiveStats:
        return self.pipeline.ingest.stats.columns()

    def ready(self) -> tuple[bool, str]:
        return (False, self.pipeline.problem) if self.pipeline.problem else (True, "")

    def status(self) -> Mapping[str, Any]:
        counters, files = self.pipeline.counters, self.pipeline.files
        return {
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "embedded": self.embedded,
            "url": str(self.address),
            "http": self.http,
            "uptime": time.time() - self.started,
            "time": time.time(),
            "writers": self.pipeline.watch.live_writers,
            "pending_bytes": self.pipeline.pending_bytes,
            "commits": counters.commits,
            "events": counters.events,
            "points": counters.points,
            "rejected": counters.rejected,
            "alerts": self.alerts.dispatch.status(),
            "files": {
                "path": str(self.settings.files),
                "stored": files.counters.stored,
                "arriving": files.arriving_count,
                "problem": files.problem,
            },
        }

    def counters(self) -> Mapping[str, float]:
        counters, files = self.pipeline.counters, self.pipeline.files
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "writers": self.pipeline.watch.live_writers,
            "pending_bytes": self.pipeline.pending_bytes,
            "batches_total": counters.batches,
            "beats_total": counters.beats,
            "events_total": counters.events,
            "points_total": counters.points,
            "commits_total": counters.commits,
            "commit_seconds_total": counters.commit_s,
            "failed_commits_total": counters.failed_commits,
            "rejected_messages_total": counters.rejected,
            "files_arriving": files.arriving_count,
            "files_total": files.counters.stored,
            "file_bytes_total": files.counters.received_bytes,
            "files_refused_total": files.counters.refused,
            "file_messages_dropped_total": files.counters.dropped,
            "alerts_sent_total": self.alerts.dispatch.counters.sent,
            "alerts_failed_total": self.alerts.dispatch.counters.failed,
            "alerts_dropped_total": self.alerts.dispatch.counters.dropped,
            "cpu_seconds_total": usage.ru_utime + usage.ru_stime,
            "max_resident_bytes": usage.ru_maxrss * 1024,
        }

    def _remove_run(self, run: int) -> None:
        """Called by the API in one of its worker threads."""
        anyio.from_thread.run(self.pipeline.remove_run, run)


class _Server(uvicorn.Server):
    """uvicorn inside of our task group: signals are ours, and its end can be waited for."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.ended.set()


@contextlib.contextmanager
def _only_one(home: Path) -> Generator[None]:
    """Holds the home's lock: of several collectors that start at once, one goes on."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AllranksError(f"cannot use the home {home}: {error.strerror}; set ALLRANKS_HOME") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning(home) from None
    finally:
        os.close(lock)


def _raise_descriptor_limit() -> None:
    """A writer takes two connections, and so two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(settings: Settings, *, embedded: bool) -> int:
    """Runs a collector until it ends; the exit code for the process. Errors are one line in its log.

    Where another one has the home already, an embedded collector has nothing to do, which is no error.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(LineLimit())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        anyio.run(Collector(settings, embedded=embedded).run)
    except AlreadyRunning as error:
        logger.info("%s", error)
        return 0 if embedded else 1
    except AllranksError as error:
        logger.error("%s", error)
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """`python -m allranks_collector [--embedded] [--keep]`: how `init` and `allranks up` start one."""
    embedded, keep = "--embedded" in arguments, "--keep" in arguments
    try:
        flags = {"idle_exit_s": "none"} if keep else {}
        settings = load_settings(flags, os.environ, embedded=embedded)
    except AllranksError as error:
        print(error, file=sys.stderr)
        return 1
    return run(settings, embedded=embedded)
