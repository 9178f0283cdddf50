"""The facts of the machine that a result depends on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_DISTRIBUTIONS = ("allranks", "anyio", "duckdb", "fastapi", "msgpack", "numpy", "psutil", "pyzmq", "uvicorn")
_PEERS = ("swanlab", "tensorboard", "trackio", "wandb")
_LIST_VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def facts() -> dict[str, Any]:
    """Cores, processor, memory, kernel, Python, and the versions that count."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _DISTRIBUTIONS},
    }


def peer_versions(python: str) -> dict[str, str]:
    """The versions of the other trackers that `python` has."""
    import json

    listed = subprocess.run(
        [python, "-c", _LIST_VERSIONS, *_PEERS], capture_output=True, text=True, timeout=60, check=True
    )
    versions: dict[str, str] = json.loads(listed.stdout)
    return versions


def load() -> float:
    """The load average of the last minute: what else the machine was busy with."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
