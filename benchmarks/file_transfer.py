"""A checkpoint on its way, from the moment it lies in the run's directory until it is checked, durable and listed.

Held against a plain copy of the same file, measured in turn with it: one process reads a mebibyte at a time and
pushes it into a ZeroMQ socket, another pulls, writes, and brings it to the disk, neither checking nor hashing it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, free_port, running_collector, temporary_home

_MIB = 1024 * 1024
_LIMIT_S = 180.0


def measure(options: Options) -> Measured:
    """Medians of several turns; in each the plain copy and the real thing come one after the other."""
    size = options.pick(1024, 128) * _MIB
    turns: list[tuple[dict[str, float], dict[str, float]]] = []
    with temporary_home() as folder:
        source = folder / "checkpoint"
        _fill(source, size)
        for _ in range(options.pick(5, 1)):
            turns.append((plain(source), real(source)))
    rate = size / _MIB / median(ours["seconds"] for _, ours in turns)
    figures = [
        Figure(
            f"a file of {size // _MIB:,} MiB, until it is stored: share of a plain copy's rate, {what}",
            median(theirs[end] / ours["seconds"] for theirs, ours in turns),
            "×",
            bound,
            note=f"{rate:,.0f} of {size / _MIB / median(theirs[end] for theirs, _ in turns):,.0f} MiB/s",
        )
        for end, what, bound in (
            ("durable_s", "both on the disk", None),
            ("written_s", "the copy left to the kernel", at_least(0.6)),
        )
    ]
    extra = max(ours["extra_mib"] for _, ours in turns)
    figures.append(
        Figure(
            "the same: memory that it costs the training process, at its peak",
            extra,
            "MiB",
            at_most(64, "beside what it had after init"),
        )
    )
    return Measured(figures, {"plain": [theirs for theirs, _ in turns], "real": [ours for _, ours in turns]})


def plain(source: Path) -> dict[str, float]:
    """The seconds of a plain copy, until it is written and until it is on the disk."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with temporary_home() as home:
        told = {"endpoint": endpoint, "path": str(home / "copy"), "limit_s": _LIMIT_S}
        with (
            Worker("copy_receiver", told, home=home) as receiver,
            Worker("copy_sender", {**told, "path": str(source)}, home=home) as sender,
        ):
            receiver.hear(30)
            sender.hear(30)
            sender.say()
            begun: float = sender.hear(_LIMIT_S)["begun"]
            ended = receiver.hear(_LIMIT_S)
        _check((home / "copy").stat().st_size, source)
    return {"written_s": ended["written"] - begun, "durable_s": ended["durable"] - begun}


def real(source: Path) -> dict[str, float]:
    """The seconds of allranks, whose shipper is at work already, and what the training process pays for it."""
    with temporary_home() as home, running_collector(home) as collector:
        before = collector.cpu_s
        with Worker("file_transfer", {"path": str(source), "limit_s": _LIMIT_S}, home=home) as training:
            run = training.hear(30)["run"]
            _await_one_file(f"{collector.endpoint.http}/api/runs/{run}/files")
            training.say()
            told = training.hear(_LIMIT_S + 30)
        stored = max(path.stat().st_size for path in (home / "files" / "blobs").rglob("*") if path.is_file())
        _check(stored, source)
        return {
            "seconds": told["stored"] - told["begun"],
            "extra_mib": told["extra_bytes"] / _MIB,
            "collector_cpu_s": collector.cpu_s - before,
        }


def _await_one_file(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as response:
            if json.load(response)["files"]:
                return
        time.sleep(0.05)
    raise RuntimeError("the first file has not arrived")


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(os.urandom(_MIB))
        os.fsync(file.fileno())


def _check(size: int, source: Path) -> None:
    if size != source.stat().st_size:
        raise RuntimeError(f"{size:,} bytes have arrived, and not {source.stat().st_size:,}")
