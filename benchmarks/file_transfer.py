"""A checkpoint on its way: from the moment it lies in the run's directory until it is stored, checksummed and listed.

Held against a plain copy of the same file, measured in turn with it: one process reads a mebibyte at a time and
pushes it into a ZeroMQ socket, another pulls and writes. That copy is neither checked nor hashed, and the kernel
brings it to the disk whenever it likes.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, free_port, running_collector, temporary_home

_MIB = 1024 * 1024
_LIMIT_S = 180.0


def measure(options: Options) -> Measured:
    """Medians of several turns; in each the plain copy and the real thing come one after the other."""
    size = options.pick(1024, 128) * _MIB
    turns: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with temporary_home() as folder:
        source = folder / "checkpoint"
        _fill(source, size)
        for _ in range(options.pick(5, 1)):
            turns.append((plain(source), real(source)))
    shares = [theirs["seconds"] / ours["seconds"] for theirs, ours in turns]
    rate = size / _MIB / median(ours["seconds"] for _, ours in turns)
    top = size / _MIB / median(theirs["seconds"] for theirs, _ in turns)
    extra = max(ours["extra_mib"] for _, ours in turns)
    return Measured(
        [
            Figure(
                f"a file of {size // _MIB:,} MiB, written until stored: share of a plain copy's rate",
                median(shares),
                "×",
                at_least(0.6),
                note=f"{rate:,.0f} of {top:,.0f} MiB/s",
            ),
            Figure(
                "the same: memory that it costs the training process, at its peak",
                extra,
                "MiB",
                at_most(64, "beside what it had after init"),
            ),
        ],
        {"plain": [theirs for theirs, _ in turns], "real": [ours for _, ours in turns]},
    )


def plain(source: Path) -> dict[str, Any]:
    """The time of a plain copy."""
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
            written: float = receiver.hear(_LIMIT_S)["written"]
        _check((home / "copy").stat().st_size, source)
    return {"seconds": written - begun}


def real(source: Path) -> dict[str, Any]:
    """The time of allranks, and what the training process pays for it."""
    with temporary_home() as home, running_collector(home) as collector:
        before = collector.cpu_s
        with Worker("file_transfer", {"path": str(source), "limit_s": _LIMIT_S}, home=home) as training:
            training.hear(30)
            training.say()
            told = training.hear(_LIMIT_S + 30)
        stored = sum(path.stat().st_size for path in (home / "files" / "blobs").rglob("*") if path.is_file())
        _check(stored, source)
        return {
            "seconds": told["stored"] - told["begun"],
            "extra_mib": told["extra_bytes"] / _MIB,
            "collector_cpu_s": collector.cpu_s - before,
        }


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(os.urandom(_MIB))
        os.fsync(file.fileno())


def _check(size: int, source: Path) -> None:
    if size != source.stat().st_size:
        raise RuntimeError(f"{size:,} bytes have arrived, and not {source.stat().st_size:,}")
