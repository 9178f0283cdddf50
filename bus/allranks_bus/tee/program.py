"""The tee as a process: `python -I -S -c BOOT PATH`, with the descriptors and the orders that `spec` says.

Whoever starts it has it ignore what a terminal or a launcher ends a training with: it stays for the last words, and
ends at their end.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time

from allranks_bus.spool_directory import is_locked, spool_names
from allranks_bus.tee import handover
from allranks_bus.tee.copying import GATHER_S, Copier, Gathered, turn_of
from allranks_bus.tee.error_file import read_error_file
from allranks_bus.tee.keeping import Keeper
from allranks_bus.tee.spec import (
    BROKEN,
    CLOSED,
    CONTROL,
    DONE,
    FIRST_FREE,
    FLUSH,
    FLUSHED,
    GONE,
    IN_VAIN,
    ORIGINALS,
    READY,
    SHARED,
    SOURCES,
    STATUS,
    Spec,
)

TYPE_CHECKING = False  # as typing has it, which is slow to load
if TYPE_CHECKING:
    from allranks_bus.tee.modes import Modes

# What the interpreter is started with: it sees nothing of the user's but what PATH names.
BOOT = "import sys; sys.path[:0] = sys.argv[1].split(':'); from {module} import main; main()"
# How long the tee of a rank whose pipe this rank prints into may take to start.
BEHIND_S = 3.0
# Where the rank is gone, and others can print still, what they print is brought in so often.
BRING_IN_S = 5.0
# While something is to be flushed, it is looked at so often.
_LOOK_S = 0.002


def main() -> None:
    """Copies and keeps until nobody can print any more, then sees to it that what is kept is brought to its place."""
    _keep_to_itself()
    Tee(Spec.read(CONTROL)).run()


class Tee:
    """The tee at work."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._keeper = Keeper(spec.root, spec.name, spec.opening, cap_bytes=spec.cap_bytes, limits=spec.limits)
        self._gathered = Gathered()
        self._copiers = [
            Copier(
                stream,
                self._gathered,
                on_full=lambda full: _tell(BROKEN[full]),
                on_gone=lambda gone: _tell(GONE[gone]),
                wake=self._wake,
                modes=_modes(stream, spec.modes.get(stream)),
            )
            for stream in spec.streams
        ]
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._listener = handover.listen(spec.door)
        self._is_flushing = False
        # Nobody tells it anything any more; it has been told that its own spool is stored, or that none ever will be.
        self._is_alone = False
        self._is_done = False
        self._is_in_vain = False
        self._has_looked_for_error = False
        self._bring_in_at = 0.0

    def run(self) -> None:
        """Returns at the end."""
        if not self._go_behind():
            _tell(SHARED)
        _tell(READY)
        turn = turn_of(self._spec.streams)
        for copier in self._copiers:
            copier.turn = turn
            copier.start()
        while not self._has_ended:
            self._look(self._patience_s())
            self._keep_due()
            self._bring_in_due()
        self._keep()
        self._look_for_error()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        # Whoever reads on the other side waits for the end of these.
        for fd in (*SOURCES.values(), *ORIGINALS.values()):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._keeper.close()
        _tell(CLOSED)
        while not (self._is_alone or self._is_done):
            self._look(None)
        if not self._is_done or _has_left_spools(self._spec.root):
            self._deliver()

    @property
    def _has_ended(self) -> bool:
        """True where nobody can print any more."""
        return all(copier.has_ended for copier in self._copiers)

    def _go_behind(self) -> bool:
        """Takes the descriptors behind the pipes of other ranks' tees for those of the pipes, where there are any."""
        wanted = self._spec.behind
        taken: set[int] = set()
        for door in set(wanted.values()):
            for stream, fd in handover.ask(door, BEHIND_S).items():
                if wanted.get(stream) == door:
                    os.dup2(fd, ORIGINALS[stream], inheritable=False)
                    taken.add(stream)
                os.close(fd)
        return taken == set(wanted)

    def _bring_in_due(self) -> None:
        """Lets go of what the rank has printed once it is gone: whoever else can print may go on for ever."""
        if self._has_ended or not self._is_alone or self._keeper.is_empty or time.monotonic() < self._bring_in_at:
            return
        if not self._bring_in_at and not all(copier.has_copied_all() for copier in self._copiers):
            return
        self._bring_in_at = time.monotonic() + BRING_IN_S
        self._keep()
        self._look_for_error()
        name = self._keeper.name
        self._keeper.begin_another()
        self._deliver(name)

    def _look_for_error(self) -> None:
        """Keeps what the rank has left in its error file, once it is gone."""
        if not self._has_looked_for_error:
            self._has_looked_for_error = True
            self._keeper.keep_error_file(read_error_file(os.environ))

    def _deliver(self, name: bytes | None = None) -> None:
        """Has a spool that is complete brought to its collector, where nobody on this host will."""
        if not self._is_in_vain and self._spec.destination.startswith(("tcp://", "ipc://")):
            import signal

            from allranks_bus.tee.delivery import arguments

            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
            with contextlib.suppress(OSError):
                os.posix_spawn(sys.executable, arguments(self._spec, name or self._keeper.name), os.environ)

    def _patience_s(self) -> float | None:
        if self._is_flushing:
            return _LOOK_S
        waits = [self._gathered.wait_s(), self._keeper.wait_s()]
        if self._is_alone and not self._keeper.is_empty:
            waits.append(max(GATHER_S, self._bring_in_at - time.monotonic()))
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def _look(self, timeout_s: float | None) -> None:
        """Waits for anything to happen, and takes it in."""
        waited = [self._wake_read, *([] if self._is_alone else [CONTROL])]
        if self._listener is not None:
            waited.append(self._listener.fileno())
        ready = select.select(waited, (), (), timeout_s)[0]
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if CONTROL in ready:
            self._take_orders(os.read(CONTROL, 4096))
        if self._listener is not None and self._listener.fileno() in ready:
            handover.give(self._listener, {stream: ORIGINALS[stream] for stream in self._spec.streams})

    def _take_orders(self, orders: bytes) -> None:
        if not orders:
            self._is_alone = True
            # The process waits for no word, and for the end of it perhaps. The number must stay taken.
            _replace(STATUS, os.devnull)
        if FLUSH in orders:
            self._is_flushing = True
        if DONE in orders:
            self._is_done = True
        if IN_VAIN in orders:
            self._is_in_vain = True

    def _keep_due(self) -> None:
        if self._is_flushing:
            if self._is_alone or all(copier.has_copied_all() for copier in self._copiers):
                self._is_flushing = False
                self._keep()
                # Where nobody can print any more, CLOSED follows in its place.
                if not self._has_ended:
                    _tell(FLUSHED)
        elif self._gathered.wait_s() == 0.0:
            self._keep()
        self._keeper.look()

    def _keep(self) -> None:
        self._keeper.keep_all(self._gathered)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")


def _modes(stream: int, first: str | None) -> Modes | None:
    if first is None:
        return None
    # Of no use where there is no terminal, as mostly.
    from allranks_bus.tee.modes import Modes

    return Modes(SOURCES[stream], ORIGINALS[stream], first)


def _has_left_spools(root: str) -> bool:
    """Whether there is anything whose writer is gone: children of the rank may have ended by `os._exit`."""
    return any(not is_locked(os.path.join(root, name)) for name in spool_names(root))  # noqa: PTH118


def _tell(word: bytes) -> None:
    """Tells the process, if it is there to hear it."""
    with contextlib.suppress(OSError):
        os.write(STATUS, word)


def _keep_to_itself() -> None:
    """Closes what C code of the training left open for its children: nobody shall wait for us to let go of it.

    And what is ours is for no child of ours.
    """
    for fd in (*SOURCES.values(), *ORIGINALS.values(), STATUS, CONTROL):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
    try:
        open_now = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    except OSError:
        open_now = list(range(1024))
    for fd in open_now:
        if fd >= FIRST_FREE:
            with contextlib.suppress(OSError):
                os.close(fd)


def _replace(fd: int, path: str) -> None:
    other = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(other, fd, inheritable=False)
    os.close(other)
