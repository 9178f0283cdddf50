"""A rank of a training over several hosts, in steps that end for all at once; in one of them this rank may break.

What the others see of that is a connection that is closed, reset, or silent. They fall over it as programs do, in the
words of the library that they use.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.workers.lines import arguments

# A collective waits for longer than anybody looks on.
_PEERS_S = 600.0


def set_clock(wrong_s: float) -> None:
    """Has everything in this process that asks for the time, but for what measures durations, be told another."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + wrong_s
    time.time_ns = lambda: right_ns() + round(wrong_s * 1e9)


class DistBackendError(RuntimeError):
    """As torch.distributed has one."""


def _gloo(error: Exception) -> Exception:
    where = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547]"
    return RuntimeError(f"{where} Connection closed by peer: {error}")


def _nccl(error: Exception) -> Exception:
    return DistBackendError(
        "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:2251, remote process exited or there was"
        f" a network error, NCCL version 2.21.5\nncclRemoteError: {error}"
    )


def _reset(error: Exception) -> Exception:
    return ConnectionResetError(104, f"Connection reset by peer ({error})")


_IN_WORDS: Mapping[str, Callable[[Exception], Exception]] = {"gloo": _gloo, "nccl": _nccl, "reset": _reset}


def _send_myself(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _segfault() -> None:
    ctypes.string_at(0)


def _exit() -> None:
    os._exit(3)


def _raise() -> None:
    raise ValueError("the loss is not a number")


def _stuck() -> None:
    while True:
        time.sleep(0.05)


def _hold() -> None:
    re.match("(a+)+$", "a" * 200 + "b")


BREAKS: Mapping[str, Callable[[], None]] = {
    "kill": _send_myself(signal.SIGKILL),
    "segfault": _segfault,
    "exit-3": _exit,
    "exception": _raise,
    "terminate": _send_myself(signal.SIGTERM),
    "abort": os.abort,
    "stop": _send_myself(signal.SIGSTOP),
    "stuck": _stuck,
    "hold": _hold,
}


def main() -> None:
    told = arguments()
    if told["clock_s"]:
        set_clock(told["clock_s"])
    import allranks
    from allranks.demo.allreduce import PeerError, join

    run = allranks.init(project="bench", id=told["run"])
    group = join(run.rank, run.world_size, told["address"], told["port"], _PEERS_S)
    draw = random.Random(run.rank)
    step = 0
    while True:
        time.sleep(told["step_s"] * draw.uniform(0.7, 1.3))
        if step == told["break_at"]:
            BREAKS[told["fault"]]()
        if told["logs_first"]:
            run.log({"loss": 1.0 / (step + 1)}, step)
        try:
            group.mean(np.zeros(4))
        except PeerError as error:
            in_words = _IN_WORDS.get(told["words"])
            if in_words is None:
                raise
            raise in_words(error) from None
        if not told["logs_first"]:
            run.log({"loss": 1.0 / (step + 1)}, step)
        step += 1


if __name__ == "__main__":
    main()
