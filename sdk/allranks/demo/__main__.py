"""The demo's launcher, `python -m allranks.demo`: N ranks on this machine, found and ended as torchrun does it."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from allranks.demo.options import add_arguments, missing_packages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

POLL_S = 0.05
GRACE_S = 5.0  # for the other ranks to find out by themselves that one is gone
TERM_S = 5.0  # between SIGTERM and SIGKILL


def rank_env(env: Mapping[str, str], rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment of one rank: what torchrun sets, and one thread per rank as torchrun does it too."""
    threads = {} if "OMP_NUM_THREADS" in env else {"OMP_NUM_THREADS": "1"}
    return {
        **env,
        **threads,
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def describe_exit(code: int) -> str:
    """A return code of subprocess in words."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def free_port() -> int:
    """A TCP port on loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Interrupted(Exception):
    """Somebody asked the launcher to end."""


def supervise(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks; after the first that fails, the others get a while and are then ended.

    Returns the exit status: 0, or 1 after a failure.
    """
    failed_at: float | None = None
    told: set[int] = set()
    while True:
        codes = [rank.poll() for rank in ranks]
        for number, code in enumerate(codes):
            if code and number not in told:
                told.add(number)
                print(f"rank {number} (pid {ranks[number].pid}) {describe_exit(code)}", file=sys.stderr)
                failed_at = failed_at or time.monotonic()
        if None not in codes:
            return 1 if told else 0
        if failed_at is not None and time.monotonic() - failed_at > GRACE_S:
            left = [number for number, code in enumerate(codes) if code is None]
            print(f"ending rank {', '.join(map(str, left))}", file=sys.stderr)
            end(ranks)
            return 1
        time.sleep(POLL_S)


def end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """End whoever is left: SIGTERM, and SIGKILL for who does not listen."""
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    deadline = time.monotonic() + TERM_S
    while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        time.sleep(POLL_S)
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Start the ranks and wait for them; every option but --ranks goes on to them."""
    argv = sys.argv[1:] if argv is None else argv
    launcher = argparse.ArgumentParser(add_help=False)
    launcher.add_argument("-n", "--ranks", type=int, default=4, help="how many ranks (default 4)")
    # The whole parser only checks and explains; the ranks get their options as they were written.
    whole = argparse.ArgumentParser(prog="python -m allranks.demo", description=__doc__, parents=[launcher])
    add_arguments(whole)
    options = whole.parse_args(argv)
    if options.ranks < 1:
        whole.error("--ranks must be at least 1")
    for flag in ("kill_rank", "stall_rank"):
        rank = getattr(options, flag)
        if rank is not None and not 0 <= rank < options.ranks:
            whole.error(f"--{flag.replace('_', '-')} must be 0 to {options.ranks - 1}")
    missing = missing_packages()
    if missing:
        print(missing, file=sys.stderr)
        return 2
    _, passed_on = launcher.parse_known_args(argv)
    return _launch(options.ranks, passed_on)


def _launch(count: int, arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    port = free_port()
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            command = [sys.executable, "-m", "allranks.demo.train", *arguments]
            ranks.append(subprocess.Popen(command, env=rank_env(os.environ, rank, count, port)))
        return supervise(ranks)
    except (KeyboardInterrupt, Interrupted):
        end(ranks)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted


if __name__ == "__main__":
    raise SystemExit(main())
