"""The doctor's checks: each is pure, and makes findings out of facts. `doctor_facts` gathers the facts.

A finding says what was found and, where that is not well, what to do about it. `fail` means that events are lost,
late or homeless as things are; `warn` that they may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from allranks_bus.addresses import parse_address
from allranks_bus.errors import AddressError
from allranks_bus.home import NETWORK_FILE_SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from allranks_collector.settings import Settings

Level = Literal["ok", "warn", "fail"]

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
LOW_SPACE_BYTES, NO_SPACE_BYTES = 1 << 30, 64 << 20
LOW_FILES_BYTES = 10 << 30
_MAKE_ROOM = "make room, or move it to a larger disk"
# A writer takes two connections of the collector, and a run may have a thousand.
FEW_DESCRIPTORS = 4096
CLOCK_WARN_S, CLOCK_FAIL_S = 2.0, 60.0
# Above these, everything that allranks asks of them is there (pyproject.toml).
NEEDED_VERSIONS = {"pyzmq": (25, 1), "libzmq": (4, 3), "duckdb": (1, 5), "python": (3, 10)}


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table."""

    name: str
    level: Level
    what: str
    what_to_do: str = ""


@dataclass(frozen=True)
class Reached:
    """A try to reach a collector; `problem` is empty where it answered."""

    target: str
    problem: str = ""


@dataclass(frozen=True)
class PortFacts:
    """Who listens on a port: nobody, our own collector, or `holder` (empty where it cannot be told).

    `may_move`: the port is the default one, and a collector that `init` starts takes another by itself.
    """

    setting: str
    port: int
    taken: bool
    by_collector: bool = False
    holder: str = ""
    may_move: bool = False


@dataclass(frozen=True)
class FolderFacts:
    """A folder, and the file system that holds it or the nearest parent that exists."""

    name: str
    path: Path
    file_system: str
    free_bytes: int
    writable: bool


def check_url(text: str | None) -> Finding:
    """ALLRANKS_URL can be read as an address."""
    if not text:
        return Finding("ALLRANKS_URL", "ok", "not set: init finds or starts this user's collector")
    try:
        address = parse_address(text)
    except AddressError as error:
        return Finding("ALLRANKS_URL", "fail", str(error), "correct ALLRANKS_URL, or unset it")
    return Finding("ALLRANKS_URL", "ok", f"data {address.data}, control {address.control}")


def check_collector(running: str | None, tried: Sequence[Reached]) -> list[Finding]:
    """The collector answers on every one of its sockets.

    Args:
        running: the collector in a few words; None where none runs, which is well: `init` starts one.
        tried: what of it was tried to reach.
    """
    if running is None and not tried:
        return [Finding("collector", "ok", "none runs; init starts one, and allranks up keeps one")]
    head = [Finding("collector", "ok", running)] if running else []
    return head + [_reached(attempt) for attempt in tried]


def _reached(attempt: Reached) -> Finding:
    if not attempt.problem:
        return Finding("collector", "ok", f"{attempt.target} answers")
    return Finding(
        "collector",
        "fail",
        f"{attempt.target} does not answer: {attempt.problem}",
        "is the address right? Its log says more (collector.log in its home); allranks down, then up, starts it anew",
    )


def check_port(facts: PortFacts) -> Finding:
    """A port of the settings is free, or our own collector has it."""
    name = f"port {facts.port}"
    if not facts.taken:
        return Finding(name, "ok", f"free, for {facts.setting}")
    if facts.by_collector:
        return Finding(name, "ok", f"{facts.setting} of this collector")
    taken = f"{facts.setting} is taken by {facts.holder or 'another process'}"
    if facts.may_move:
        return Finding(name, "ok", f"{taken}; the collector that init starts takes a free one")
    return Finding(
        name,
        "warn",
        taken,
        f"end that process, or set {facts.setting} (ALLRANKS_{facts.setting.upper()}) to another port",
    )


def check_versions(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[Finding]:
    """Everything is new enough, and the collector speaks our protocol.

    Args:
        ours: version by name, of allranks, protocol, python, pyzmq, libzmq, duckdb; None for one that is missing.
        theirs: what the running collector tells of allranks and protocol; empty where none runs.
    """
    findings: list[Finding] = []
    for name, needed in NEEDED_VERSIONS.items():
        version = ours.get(name)
        wanted = ".".join(map(str, needed))
        if version is None:
            findings.append(
                Finding(name, "fail", "not installed", 'pip install "allranks[collector]" where a collector runs')
            )
        elif _numbers(version) < needed:
            findings.append(Finding(name, "fail", f"{version}, and {wanted} is needed", f"upgrade {name}"))
        else:
            findings.append(Finding(name, "ok", version))
    return findings + [_same(name, ours.get(name), theirs.get(name)) for name in ("allranks", "protocol")]


def _same(name: str, ours: str | None, theirs: str | None) -> Finding:
    if theirs is None or ours == theirs:
        return Finding(name, "ok", f"{ours}" + (", and so the collector" if theirs else ""))
    if name == "protocol" and ours is not None and _numbers(theirs) < _numbers(ours):
        what = f"writers here speak version {ours}, and the collector only up to {theirs}"
        return Finding(name, "fail", what, "upgrade the collector, and restart it")
    return Finding(name, "warn", f"{ours} here, and the collector runs {theirs}", "allranks down, then allranks up")


def _numbers(version: str) -> tuple[int, ...]:
    digits = (part for part in version.replace("-", ".").split("."))
    return tuple(int(part) for part in digits if part.isdecimal())


def check_folder(facts: FolderFacts) -> list[Finding]:
    """The folder is on a local disk with room, and can be written."""
    where = f"{facts.path} on {facts.file_system or 'an unknown file system'}"
    finding = Finding(facts.name, "ok", where)
    if facts.file_system in NETWORK_FILE_SYSTEMS or facts.file_system.startswith("fuse."):
        finding = Finding(
            facts.name,
            "fail",
            f"{where}: a network file system, which makes log() wait",
            f"set ALLRANKS_{facts.name.upper()} to a folder on a local disk",
        )
    elif facts.path.is_relative_to("/dev/shm") or facts.file_system in MEMORY_FILE_SYSTEMS:
        finding = Finding(
            facts.name,
            "warn",
            f"{where}: memory, which DataLoader workers need and a reboot clears",
            f"set ALLRANKS_{facts.name.upper()} to a folder on a local disk",
        )
    return [finding, *_room(facts)]


def _room(facts: FolderFacts) -> Iterable[Finding]:
    name, cure = f"{facts.name} space", _MAKE_ROOM
    free = f"{facts.free_bytes / 2**30:.1f} GiB free"
    if not facts.writable:
        yield Finding(f"{facts.name} access", "fail", f"{facts.path} cannot be written", "check owner and mode")
    if facts.free_bytes < NO_SPACE_BYTES:
        yield Finding(name, "fail", f"{free}: no events can be kept", cure)
    elif facts.free_bytes < LOW_SPACE_BYTES:
        yield Finding(name, "warn", f"{free}: enough for minutes to hours", cure)
    else:
        yield Finding(name, "ok", free)


def check_files(facts: FolderFacts, held_bytes: int, reserve_bytes: int) -> list[Finding]:
    """The folder of the runs' files has room beside what is kept free for events and trainings, and can be written.

    Any file system will do: nothing waits for it but the files themselves.
    """
    where = f"{facts.path} on {facts.file_system or 'an unknown file system'}, {held_bytes / 2**30:.1f} GiB kept"
    finding = Finding(facts.name, "ok", where)
    if facts.file_system in MEMORY_FILE_SYSTEMS:
        cure = f"set ALLRANKS_{facts.name.upper()} to a folder on a disk"
        finding = Finding(facts.name, "warn", f"{where}: memory, which a reboot clears", cure)
    elif not facts.writable:
        finding = Finding(facts.name, "fail", f"{facts.path} cannot be written", "check owner and mode")
    free = (
        f"{facts.free_bytes / 2**30:.1f} GiB free, {reserve_bytes / 2**30:.1f} of them left to events and trainings"
    )
    cure = f"{_MAKE_ROOM}, or leave less free (files_reserve_mb)"
    if facts.free_bytes <= reserve_bytes:
        space = Finding(f"{facts.name} space", "fail", f"{free}: no files are taken", cure)
    elif facts.free_bytes < reserve_bytes + LOW_FILES_BYTES:
        space = Finding(f"{facts.name} space", "warn", f"{free}: a checkpoint may not fit", cure)
    else:
        space = Finding(f"{facts.name} space", "ok", free)
    return [finding, space]


def check_descriptors(soft: int, hard: int) -> Finding:
    """The collector may open enough sockets; -1 stands for no limit. It raises the soft limit by itself."""
    what = f"{_limit(soft)} files at once, {_limit(hard)} at most"
    if hard != -1 and hard < FEW_DESCRIPTORS:
        ranks = hard // 4
        return Finding(
            "open files", "warn", f"{what}: enough for about {ranks} ranks", f"raise it: ulimit -Hn {FEW_DESCRIPTORS}"
        )
    return Finding("open files", "ok", what)


def _limit(value: int) -> str:
    return "any number of" if value == -1 else str(value)


def check_clock(offset_s: float | None, uncertainty_s: float) -> Finding:
    """The collector's clock agrees with ours.

    Args:
        offset_s: the collector's time less ours; None where no collector was asked.
        uncertainty_s: how far the offset may be wrong (the answer's way, the resolution).
    """
    if offset_s is None:
        return Finding("clock", "ok", "no collector to compare it with")
    apart = max(abs(offset_s) - uncertainty_s, 0.0)
    level: Level = "fail" if apart > CLOCK_FAIL_S else "warn" if apart > CLOCK_WARN_S else "ok"
    if level == "ok":
        return Finding("clock", "ok", "agrees with the collector's")
    word = "ahead of" if offset_s > 0 else "behind"
    return Finding(
        "clock",
        level,
        f"the collector's is {abs(offset_s):.0f} s {word} ours: times of different hosts do not fit together",
        "let both hosts keep their time by NTP",
    )


def check_orphans(count: int, held_bytes: int, drained_by_collector: bool) -> Finding:
    """No spool waits on this host for somebody to bring it in."""
    if not count:
        return Finding("orphaned spools", "ok", "none")
    what = f"{count} with {held_bytes / 2**20:.1f} MiB, left by writers that are gone"
    if drained_by_collector:
        return Finding("orphaned spools", "ok", f"{what}; the collector brings them in")
    return Finding("orphaned spools", "warn", what, "allranks sync brings them in")


def check_outboxes(count: int, drained_by_collector: bool) -> Finding:
    """No files wait on this host for somebody to ship them."""
    if not count:
        return Finding("orphaned files", "ok", "none")
    what = f"of {count} runs, left by trainings that are gone"
    if drained_by_collector:
        return Finding("orphaned files", "ok", f"{what}; the collector brings in those meant for it")
    return Finding("orphaned files", "warn", what, "allranks sync brings them in")


def check_settings(settings: Settings | None, problem: str = "") -> Finding:
    """The settings can be read."""
    if settings is None:
        return Finding("settings", "fail", problem, "correct that setting")
    changed = sorted(name for name, source in settings.sources.items() if not source.startswith("default"))
    return Finding("settings", "ok", f"set: {', '.join(changed)}" if changed else "all have their defaults")


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether the doctor's exit status is 1."""
    return any(finding.level == "fail" for finding in findings)
