"""The publisher: one daemon thread per process that ships the spool, beats, and samples the system.

It wakes three times a second, whatever the training does: `log()` never wakes it, for a system call per event is what
the spool saves. It is made in the process that it serves, and never crosses a fork. Offline it ships nothing, and
does the rest.

What it needs for that, ZeroMQ above all, is imported by it, and not at once where this user's own collector is meant:
when the ranks of a program start there is not enough of a processor for anything, and many a process ends soon. That
collector brings in what is left in the spools, so seeing that there is one is all that must be done.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from allranks._exits import look_for_a_program
from allranks._loading import load
from allranks._log import RankLog
from allranks._warnings import warn_once
from allranks_bus import events, processes
from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AllranksError
from allranks_bus.events import Kind
from allranks_bus.polling import wait_readable
from allranks_bus.sandbox import may_schedule

if TYPE_CHECKING:
    from allranks.system import SystemSampler
    from allranks_bus.courier import Courier
    from allranks_bus.home import Endpoint
    from allranks_bus.wire import Command, Refused

# Each wake takes most of a millisecond of a training that holds the GIL, and finds nothing of itself in a cache.
TICK_S = 1 / 3
# A program that starts is left to itself for so long.
QUIET_S = 1.0
# The rest of `init` does not take longer.
_BEGIN_S = 0.05
BEAT_S = 1.0
SAMPLE_S = 10.0
# Acks are taken in this often where nothing hangs on them.
HEAR_S = 0.6
# A collector that has not answered a beat for so long is looked for anew: it may have come back elsewhere.
SILENCE_S = 5.0
_LAUNCH_AGAIN_S = 30.0
_TRY_AGAIN_S = 1.0
# How often the process of the embedded collector is looked at.
_LOOK_S = 1.0


class Publisher:
    """Ships `log` to the collector at `address`, or to this user's embedded one, which it starts if need be.

    Args:
        name: the writer's 16 bytes.
        status: makes the map of a beat.
        tick: called each time that it wakes; returns within milliseconds, and does not raise.
        address: None means the embedded collector of `env`'s ALLRANKS_HOME.
    """

    def __init__(
        self,
        log: RankLog,
        name: bytes,
        status: Callable[[], Mapping[str, Any]],
        tick: Callable[[], None],
        address: Address | None,
        env: Mapping[str, str],
        is_offline: bool = False,
    ) -> None:
        self._log = log
        self._name = name
        self._status = status
        self._tick = tick
        self._is_offline = is_offline
        self._address = address
        self._env = env
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._may_begin = threading.Event()
        self._ending = threading.Event()
        self._deadline = self._leave_at = float("inf")
        self._is_leaving = False
        # Nothing more can be done for a collector: one runs or is on its way, or there cannot be one.
        self._is_settled = False
        self._endpoint: Endpoint | None = None
        self._sampler: SystemSampler | None = None
        # The process whose figures are sampled; None for this one.
        self._observed: int | None = None
        self._sample_at = time.monotonic() + QUIET_S
        self._launch_at = 0.0
        # One that is on its way is waited for.
        self._waits_for_launch = False
        self._look_at = 0.0
        self._connected_at = 0.0
        # Read by other threads, written by this one: plain values, each replaced whole.
        self.http: str | None = None
        self.url: str | None = str(address) if address else None
        self.acked = 0
        self.resends = 0
        self.is_heard = False
        # This user's collector runs, or is on its way: it brings in what stays in the spool.
        self.is_taken_over = False
        self.is_done = False
        self.refusal = ""
        # Not `Thread.join`: up to Python 3.12 an interrupt in it makes a thread that goes on look as if it had ended.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="allranks-publisher", daemon=True)

    def start(self) -> None:
        """Starts the thread, which leaves the processor to who starts it until `begin`, or for some milliseconds."""
        self._thread.start()

    def begin(self) -> None:
        """Tells the thread that nobody waits for this one's processor any more."""
        self._may_begin.set()

    def observe(self, pid: int) -> None:
        """Samples the figures of another process in the place of this one's."""
        self._observed, self._sampler = pid, None

    def finish(self, timeout_s: float) -> bool:
        """Ships what is left; True where all of it was acked in time. The thread is gone then, or soon."""
        return self._end(timeout_s)

    def leave(self, timeout_s: float, start_timeout_s: float) -> bool:
        """`finish` for a program that ends, where this user's collector brings in what is left.

        Args:
            timeout_s: for what a collector that runs has not acked yet; one that is on its way is not waited for.
            start_timeout_s: for having it started, where nobody has.
        """
        self._leave_at = time.monotonic() + timeout_s
        self._is_leaving = True
        return self._end(max(timeout_s, start_timeout_s))

    def _end(self, timeout_s: float) -> bool:
        self._deadline = time.monotonic() + timeout_s
        self._ending.set()
        self._may_begin.set()
        if not self._ended.is_set():  # else this is asked again, after an interrupt
            os.write(self._wake_write, b"x")
        # A little more than the deadline that the thread itself keeps, to let it close its sockets.
        if self._ended.wait(timeout_s + 0.5):
            self.abandon()
        return self.is_done

    def abandon(self) -> None:
        """Closes the descriptors. In a forked child the thread and the sockets stay the parent's."""
        descriptors, self._wake_read, self._wake_write = (self._wake_read, self._wake_write), -1, -1
        for fd in descriptors:
            if fd >= 0:
                os.close(fd)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        self._may_begin.wait(_BEGIN_S)
        if self._is_offline:
            self._keep()
            return
        if not may_schedule():
            warn_once(
                "sandbox",
                "this sandbox denies sched_setscheduler, which ZeroMQ's threads need: nothing is sent from here; "
                f"events stay in {self._log.directory}; a collector here or `allranks sync` ships them",
            )
            self._keep()
            return
        if self._address is None and self._is_over_before_it_begins():
            return
        while not self._try_to_ship():
            # Whatever it was (no descriptors left, say) may pass: the spool keeps everything until then.
            self._ending.wait(_TRY_AGAIN_S)
            if self._is_out_of_time(is_connected=False):
                return
            if self._ending.is_set():
                time.sleep(TICK_S)

    def _is_over_before_it_begins(self) -> bool:
        """Lets the program start, and sees to it that there is a collector; True where it has ended by then."""
        until = time.monotonic() + QUIET_S
        try:
            self._embedded(time.monotonic())
            while time.monotonic() < until and not self._ending.is_set():
                self._look_around(time.monotonic())
                wait_readable((self._wake_read,), TICK_S)
        except Exception:  # it will be met again, and said, when there is something to ship
            return False
        finally:
            self._waits_for_launch = True
        if self.is_taken_over:
            self._launch_at = 0.0
        return self._is_out_of_time(is_connected=False)

    def _keep(self) -> None:
        """All that there is to do where nothing is sent."""
        while not self._ending.is_set():
            self._look_around(time.monotonic())
            self._tick()
            if wait_readable((self._wake_read,), TICK_S):
                return

    def _look_around(self, now: float) -> None:
        """What is done at each tick, whether anything is sent or not."""
        if now >= self._sample_at and not self._ending.is_set():
            self._sample_at = now + SAMPLE_S
            self._try_to_sample()
        self._log.report_drops()
        self._log.look_for_tensors()
        look_for_a_program()

    def _try_to_ship(self) -> bool:
        """Ships until the end; False where something came in the way."""
        try:
            # An import too may fail for a while: no descriptors left, a file system that does not answer.
            courier: Courier = load("allranks_bus.courier").Courier(self._name, self._log)
            with closing(courier):
                self._ship(courier)
        except Exception as error:  # the training must go on
            warn_once(
                f"publisher:{type(error).__name__}",
                f"events cannot be sent at the moment ({type(error).__name__}: {error}); "
                f"they are kept in {self._log.directory}",
            )
            return False
        return True

    def _ship(self, courier: Courier) -> None:
        beat_at = 0.0
        shipment = courier.shipment
        stacks = load("allranks._stacks")
        stacks.offer()
        waiting, hear_at = True, 0.0
        while True:
            now, ending = time.monotonic(), self._ending.is_set()
            self._keep_connected(courier, now)
            self._look_around(now)
            self._tick()
            if courier.is_connected and now >= beat_at:
                beat_at = now + BEAT_S
                stacks.look()
                courier.beat(self._status())
            if waiting or now >= hear_at:
                hear_at = now + HEAR_S
                self._hear(courier)
            # Acks are waited for only where something hangs on them: a window that is full, or the end.
            waiting = courier.pump(is_urgent=ending) or ending
            if ending and (shipment.is_done or self._is_out_of_time(is_connected=courier.is_connected)):
                self.is_done = shipment.is_done
                return
            until = min(self._deadline, self._leave_at) if courier.is_connected else self._deadline
            if courier.wait(min(TICK_S, max(0.0, until - now)), self._wake_read, hear=waiting):
                os.read(self._wake_read, 16)

    def _hear(self, courier: Courier) -> None:
        wire = load("allranks_bus.wire")
        refused: type[Refused] = wire.Refused
        command: type[Command] = wire.Command
        for message in courier.hear():
            if isinstance(message, refused):
                self.refusal = message.reason
                warn_once(f"refused:{message.reason}", f"the collector refuses this rank's events: {message.reason}")
            elif isinstance(message, command) and message.name == "stacks":
                load("allranks._stacks").answer(self._log, message.arguments.get("token"))
        self.acked = courier.shipment.acked
        self.resends = courier.shipment.resends
        self.is_heard = courier.heard_at is not None

    def _keep_connected(self, courier: Courier, now: float) -> None:
        if courier.is_connected:
            silent_since = courier.heard_at if courier.heard_at is not None else self._connected_at
            if now - silent_since < SILENCE_S and not self._has_embedded_died(now):
                return
        address = self._address or self._embedded(now)
        if address is not None:
            self._connected_at = now
            courier.connect(address)

    def _has_embedded_died(self, now: float) -> bool:
        """Whether it has, as far as it has been looked at: each look gives up the GIL several times."""
        endpoint = self._endpoint
        if endpoint is None or now < self._look_at:
            return False
        self._look_at = now + _LOOK_S
        return not processes.is_alive(endpoint.pid, endpoint.pid_start)

    def _embedded(self, now: float) -> Address | None:
        """The address of this user's collector; it is started where there is none, and not too often."""
        if now < self._launch_at:
            return None
        self._launch_at = now + _LAUNCH_AGAIN_S
        self._is_settled = self.is_taken_over = False
        try:
            endpoint: Endpoint | None = load("allranks_bus.launch").ensure_collector(
                self._env, should_stop=self._gives_up_waiting
            )
        except AllranksError as error:
            self._is_settled = True
            warn_once("launch", f"{error}; events stay in {self._log.directory}")
            return None
        if endpoint is None:
            return None
        self._is_settled = self.is_taken_over = True
        # Once one has run, its successor may be started at once.
        self._launch_at = 0.0
        self._endpoint = endpoint
        self.url, self.http = endpoint.url, endpoint.http
        return parse_address(endpoint.url)

    def _gives_up_waiting(self, is_coming: bool) -> bool:
        """Asked while a collector is started."""
        self._is_settled = self.is_taken_over = is_coming
        return (is_coming and not self._waits_for_launch) or self._is_out_of_time(is_connected=False)

    def _is_out_of_time(self, *, is_connected: bool) -> bool:
        """Whether what is not stored by now stays in the spool."""
        if not self._ending.is_set():
            return False
        now = time.monotonic()
        return now >= self._deadline or (
            self._is_leaving and self._is_settled and (now >= self._leave_at or not is_connected)
        )

    def _try_to_sample(self) -> None:
        try:
            self._sample()
        except Exception as error:  # shipping must go on
            warn_once("system", f"the system's figures cannot be read: {type(error).__name__}: {error}")

    def _sample(self) -> None:
        if self._sampler is None:
            # psutil's rates need a first look, which gives nothing; a second one follows after the first interval.
            self._sampler = load("allranks.system").SystemSampler(self._observed, load=load)
            return
        sample = self._sampler.sample()
        if sample:
            self._log.append_ours(events.pack(Kind.SYSTEM, time.time_ns(), max(0, self._log.step), sample))
