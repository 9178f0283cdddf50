"""`allranks run -- COMMAND …`, as a program of the SDK: any command as a rank of a run, and its code is not touched.

What it prints is kept, and how it ended. It gets this process's streams and group; signals go on to it; and this
process ends as it did. A Python program within that calls `init` is the same rank of the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

import allranks
from allranks._warnings import say
from allranks.parents import PARENT_VARIABLE, WRAPPER_VARIABLE, parse_parent
from allranks_bus.errors import AllranksError

# What goes on to the command.
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# siginfo_t.si_code of a signal that the kernel sent, as it does for a terminal: to the whole group (sigaction(2)).
_SI_KERNEL = 0x80
# As shells have it.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code for this process, which ends by a signal where the command did."""
    options = _options(sys.argv[1:] if argv is None else argv)
    command: list[str] = options.command
    # Before any thread: none of them may take a signal that is meant for the command.
    waited = {*FORWARDED, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv = command  # this is what is run
    try:
        run = allranks.init(
            options.project,
            name=options.name,
            group=options.group,
            id=options.id,
            tags=options.tag,
            notes=options.notes,
            rank=options.rank,
            world_size=options.world_size,
            config={"command": shlex.join(command)},
        )
    except AllranksError as error:
        say(str(error))
        return 2
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            command_environment(os.environ),
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except OSError as error:
        say(f"cannot run {command[0]}: {error.strerror}")
        code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        run.finish(code)
        return code
    run.observe(pid)
    code = _wait(pid, waited)
    run.finish(code)
    if code < 0:
        _end_by(signal.Signals(-code))
    return code


def command_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the command: whoever calls `init` there is of this run, and not a child of this process."""
    told = parse_parent(env.get(PARENT_VARIABLE, ""))
    if told is None or told.pid != os.getpid():  # nothing is kept
        return dict(env)
    kept = {name: value for name, value in env.items() if name != PARENT_VARIABLE}
    return {**kept, WRAPPER_VARIABLE: env[PARENT_VARIABLE]}


def _wait(pid: int, waited: set[signal.Signals]) -> int:
    """Waits for the command, and passes signals on; its exit code, or minus the signal that ended it."""
    while True:
        came = signal.sigwaitinfo(waited)
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif came.si_code != _SI_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, came.si_signo)


def _end_by(number: signal.Signals) -> None:
    """Ends this process as the command ended: who waits for it sees the same."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its own
    with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="allranks run", description="Run a command as a rank of a run.")
    parser.add_argument("--project", "-p")
    parser.add_argument("--name")
    parser.add_argument("--group", "-g")
    parser.add_argument("--id")
    parser.add_argument("--tag", action="append", default=[])
    parser.add_argument("--notes")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--world-size", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    options.command = options.command[options.command[:1] == ["--"] :]
    if not options.command:
        parser.error("name a command, after --")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
