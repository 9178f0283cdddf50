"""Where things lie on this machine: the home of the embedded collector, the spool, and who is listening.

HOME/collector.json      the endpoint of this user's running collector
HOME/allranks.duckdb     its store
HOME/spool/              the spool root, unless HOME is on a network file system
HOME/runs/ID/            a run's directory
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from allranks_bus import processes

ENDPOINT_FILE = "collector.json"
_MOUNTS = Path("/proc/self/mountinfo")

# File systems whose writes wait for a network, or whose locks cannot be trusted (statfs(2), mount(8)).
NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "virtiofs",
        "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "wekafs", "panfs",
        "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.gcsfuse", "fuse.s3fs", "fuse.goofys", "fuse.rclone",
        "fuse.juicefs", "fuse.blobfuse2", "fuse.mountpoint-s3",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """A running collector of this user.

    Attributes:
        url: of its data socket, as in ALLRANKS_URL.
        http: of its API and dashboard.
        pid, pid_start: its process.
        instance: 32 hex digits that name its database.
        version: of its allranks.
        started: Unix time in seconds.
    """

    url: str
    http: str
    pid: int
    pid_start: int
    instance: str
    version: str
    started: float


def home_dir(env: Mapping[str, str] = os.environ) -> Path:
    """The home of this user's embedded collector: ALLRANKS_HOME, or `allranks` under the user's data directory."""
    if env.get("ALLRANKS_HOME"):
        return _path(env["ALLRANKS_HOME"])
    if env.get("XDG_DATA_HOME"):
        return _path(env["XDG_DATA_HOME"]) / "allranks"
    if env.get("HOME"):
        return _path(env["HOME"]) / ".local/share/allranks"
    try:
        return Path.home() / ".local/share/allranks"
    except RuntimeError:  # a container's user without an entry in passwd has no home
        return _temporary() / f"allranks-{os.getuid()}"


def spool_roots(env: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The directories where spools may lie, best first; a writer takes the first in which it can write.

    ALLRANKS_SPOOL alone where it is set. Else the home, if it is on a local disk, then the temporary directories
    that survive a reboot or not. Never /dev/shm: DataLoader workers live there, and fill it.
    """
    if env.get("ALLRANKS_SPOOL"):
        yield _path(env["ALLRANKS_SPOOL"])
        return
    home = home_dir(env)
    if not is_network(home):
        yield home / "spool"
    for base in (Path("/var/tmp"), _temporary()):
        if not is_network(base) and not base.is_relative_to("/dev/shm"):
            yield base / f"allranks-{os.getuid()}" / "spool"


def run_dir(run: str, env: Mapping[str, str] = os.environ) -> Path:
    """The directory of a run: the same path for all its ranks on one host, without asking anybody."""
    base = _path(env["ALLRANKS_DIR"]) if env.get("ALLRANKS_DIR") else home_dir(env) / "runs"
    return base / run


def last_endpoint(home: Path) -> Endpoint | None:
    """The collector that was last announced with this home, or None; one that ended well has taken that back."""
    try:
        told = json.loads((home / ENDPOINT_FILE).read_text())
        # A newer collector may tell more.
        return Endpoint(**{field.name: told[field.name] for field in fields(Endpoint)})
    except (OSError, ValueError, TypeError, LookupError):
        return None


def read_endpoint(home: Path) -> Endpoint | None:
    """The collector that runs with this home, or None: there is none, or its process is gone."""
    endpoint = last_endpoint(home)
    try:
        return endpoint if endpoint and processes.is_alive(endpoint.pid, endpoint.pid_start) else None
    except (TypeError, ValueError):  # the file holds something else than a pid
        return None


def write_endpoint(home: Path, endpoint: Endpoint) -> None:
    """Tells everybody who shares `home` where the collector is; a reader sees the old file or the new one."""
    temporary = home / f".{ENDPOINT_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(endpoint), indent=1))
    temporary.chmod(0o600)
    temporary.replace(home / ENDPOINT_FILE)


def remove_endpoint(home: Path, pid: int) -> None:
    """Takes the endpoint of the collector `pid` back; leaves a successor's alone."""
    path = home / ENDPOINT_FILE
    try:
        if json.loads(path.read_text())["pid"] == pid:
            path.unlink()
    except (OSError, ValueError, TypeError, LookupError):
        pass


def file_system(path: Path) -> str:
    """The type of the file system that holds `path` or its nearest existing parent; empty where unknown."""
    resolved = Path(os.path.realpath(path))
    best, kind = -1, ""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(b" - ")
        # proc(5): octal escapes stand for blanks in a mount point.
        name = re.sub(rb"\\([0-7]{3})", lambda octal: bytes((int(octal[1], 8),)), before.split(b" ")[4])
        mount = Path(os.fsdecode(name))
        # Of several on one mount point the last one hides the others.
        if len(mount.parts) >= best and resolved.is_relative_to(mount):
            best, kind = len(mount.parts), os.fsdecode(after.split(b" ")[0])
    return kind


def is_network(path: Path) -> bool:
    """True where `path` is on a network file system."""
    return file_system(path) in NETWORK_FILE_SYSTEMS


def _temporary() -> Path:
    # Few come here, and what it loads in its turn would make `import allranks` longer for all.
    import tempfile

    return Path(tempfile.gettempdir())


def _path(text: str) -> Path:
    """An absolute path; a `~` that means nobody's home stands for itself, as it does for a shell."""
    path = Path(text)
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    return path.absolute()
