"""What a rank says of its surroundings, once, some seconds after it began: for what differs between ranks.

Gathered by the publisher's thread, one part a tick, from files that are open to everybody: no program is started, no
package is imported, and nothing is asked of a device but by NVML. What cannot be had is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from allranks._loading import load
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.limits import MAX_SURROUNDINGS_BYTES

_MAX_TEXT = 1024
_MAX_PACKAGES = 500
_MAX_VARIABLES = 300
# Of what the program has loaded out of its repository; a working tree may be on a file system of a whole cluster.
_MAX_SOURCES = 64
_MAX_SOURCE_BYTES = 1024 * 1024
_MAX_INDEX_BYTES = 2 * 1024 * 1024
_MAX_CHANGED = 20
_MAX_DEVICES = 64

_PREFIXES = (
    *("NCCL_", "RCCL_", "GLOO_", "UCX_", "UCC_", "FI_", "MPI_", "OMPI_MCA_", "MASTER_"),
    *("TORCH_", "TORCHELASTIC_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "TRITON_", "XLA_", "JAX_", "TF_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NVTE_", "ROCM_", "HIP_", "HSA_", "ROCR_"),
    *("OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "NUMEXPR_", "MALLOC_"),
    *("HF_", "TRANSFORMERS_", "TOKENIZERS_", "ACCELERATE_", "DEEPSPEED_", "ALLRANKS_"),
    *("PYTHON", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "CONDA_"),
)
_SECRET = re.compile(
    r"TOKEN(?!IZERS)|SECRET|PASS|PWD|KEY|CREDENTIAL|AUTH|COOKIE|SIGNATURE|PRIVATE|SESSION", re.IGNORECASE
)
# user:password@ in an address.
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
# Modules whose package is called otherwise.
_PACKAGES = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "dateutil": "python-dateutil",
    "google": "protobuf",
    "pynvml": "nvidia-ml-py",
    "zmq": "pyzmq",
    "attr": "attrs",
    "flash_attn": "flash-attn",
    "pytorch_lightning": "pytorch-lightning",
    "transformer_engine": "transformer-engine",
}


class Log(Protocol):
    """What is asked of a rank's log."""

    @property
    def is_suspended(self) -> bool: ...
    def append_ours(self, payload: bytes) -> bool: ...


class Surroundings:
    """A companion of a run: says them once, when all parts have been gathered."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._told: dict[str, Any] = {}
        self._parts: Iterator[tuple[str, Callable[[], Any]]] | None = iter(PARTS.items())

    def tick(self) -> None:
        """Gathers the next part, or says them all."""
        if self._parts is None:
            return
        part = next(self._parts, None)
        if part is not None:
            name, gather = part
            with contextlib.suppress(Exception):  # what cannot be had is left out
                found = gather()
                if found:
                    self._told[name] = found
        elif not self._log.is_suspended:
            self._parts = None
            self._log.append_ours(events.pack(Kind.SURROUNDINGS, time.time_ns(), bounded(self._told)))
        else:
            self._parts = iter(())

    def finish(self, deadline: float) -> bool:  # noqa: ARG002
        """Says nothing any more: the log has its last record."""
        self._parts = None
        return True

    def leave(self) -> None:
        self._parts = None

    def abandon(self) -> None:
        self._parts = None


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Those variables that decide how a training runs; never one whose name looks like a secret's."""
    names = sorted(name for name in env if name.startswith(_PREFIXES) and not _SECRET.search(name))
    return {name: _USERINFO.sub("…", env[name])[:_MAX_TEXT] for name in names[:_MAX_VARIABLES]}


def packages(modules: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """The versions of the imported packages, by the names of the folders that their installers left in `paths`."""
    installed: dict[str, tuple[str, str]] = {}
    for path in paths:
        with contextlib.suppress(OSError), os.scandir(path or ".") as entries:
            for entry in entries:
                stem, dot, _ = entry.name.rpartition(".dist-info")
                name, dash, version = stem.partition("-")
                if dot and dash:
                    installed.setdefault(_canonical(name), (name.replace("_", "-"), version))
    found: dict[str, str] = {}
    for module in sorted({name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)):
        known = installed.get(_canonical(_PACKAGES.get(module, module)))
        if known is not None and len(found) < _MAX_PACKAGES:
            found[known[0]] = known[1]
    return found


def git_state(start: Path, sources: Iterable[str]) -> dict[str, Any]:
    """The commit of the working tree that `start` lies in, and which of `sources` are not as git's index has them.

    Returns:
        `revision`, `branch` where there is one, and `changed`: paths in the working tree; empty outside of any.
    """
    found = _find_repository(start)
    if found is None:
        return {}
    tree, git = found
    head = _read(git / "HEAD").strip()
    state: dict[str, Any] = {}
    if head.startswith("ref: "):
        reference = head[5:].strip()
        state["branch"] = reference.removeprefix("refs/heads/")[:_MAX_TEXT]
        head = _resolve(git, reference)
    if re.fullmatch(r"[0-9a-f]{40,64}", head):
        state["revision"] = head
    changed = _changed(tree, git, sources)
    return {**state, **({"changed": changed} if changed else {})}


def visible(told: str | None, uuids: Sequence[str]) -> list[int]:
    """The devices that CUDA shows a process, in its order, by their places in `uuids`.

    Args:
        told: CUDA_VISIBLE_DEVICES: indices, or beginnings of UUIDs; what comes after one that is neither is not seen.
    """
    if told is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for word in told.split(","):
        word = word.strip()
        places = [place for place, uuid in enumerate(uuids) if len(word) > 4 and uuid.startswith(word)]
        if word.isdecimal() and int(word) < len(uuids):
            places = [int(word)]
        if len(places) != 1 or places[0] in found:
            break
        found += places
    return found


def bounded(told: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as a record may hold: the largest parts are left out first, and `left_out` names them."""
    kept, left_out = dict(told), list[str]()
    while kept and len(json.dumps(kept)) > MAX_SURROUNDINGS_BYTES - 1024:
        largest = max(kept, key=lambda name: len(json.dumps(kept[name])))
        del kept[largest]
        left_out.append(largest)
    return {**kept, **({"left_out": left_out} if left_out else {})}


def _git() -> dict[str, Any]:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    start = Path(main).absolute().parent if main else Path.cwd()
    # Past `getattr`, which would have some modules import others.
    files = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    return git_state(start, [file for file in files if isinstance(file, str) and file.endswith(".py")])


def _python() -> dict[str, str]:
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "executable": sys.executable[:_MAX_TEXT],
    }


def _host() -> dict[str, Any]:
    system = os.uname()
    return {
        "name": system.nodename,
        "kernel": system.release,
        "machine": system.machine,
        "cpus": len(os.sched_getaffinity(0)),
    }


def _torch() -> dict[str, str]:
    version = sys.modules["torch"].version
    told = {name: getattr(version, name, None) for name in ("__version__", "git_version", "cuda", "hip")}
    return {name.strip("_"): str(value)[:_MAX_TEXT] for name, value in told.items() if value}


def _gpu() -> dict[str, Any]:
    nvml = load("pynvml")
    nvml.nvmlInit()
    count = min(int(nvml.nvmlDeviceGetCount()), 64)
    cuda = int(nvml.nvmlSystemGetCudaDriverVersion())
    names = [_word(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]
    return {
        "driver": _word(nvml.nvmlSystemGetDriverVersion()),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "models": sorted(set(names)),
        "count": count,
    }


def _devices() -> dict[str, Any]:
    """Which GPUs this process may use, in CUDA's order, and those of them that it computes on, by their indices."""
    nvml = load("pynvml")
    nvml.nvmlInit()
    handles = [
        nvml.nvmlDeviceGetHandleByIndex(index) for index in range(min(nvml.nvmlDeviceGetCount(), _MAX_DEVICES))
    ]
    uuids = [_word(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    shown = visible(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)
    used: list[int] = []
    for index in shown:
        with contextlib.suppress(Exception):  # a driver may not tell
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handles[index])
            if any(process.pid == os.getpid() for process in processes):
                used.append(index)
    return {
        "visible": [
            {"index": index, "name": _word(nvml.nvmlDeviceGetName(handles[index])), "uuid": uuids[index]}
            for index in shown
        ],
        "used": used,
    }


# In the order in which they are gathered, one a tick.
PARTS: Mapping[str, Callable[[], Any]] = {
    "python": _python,
    "host": _host,
    "env": lambda: environment(dict(os.environ)),
    "packages": lambda: packages(list(sys.modules), list(sys.path)),
    "torch": _torch,
    "gpu": _gpu,
    "devices": _devices,
    "git": _git,
}


def _find_repository(start: Path) -> tuple[Path, Path] | None:
    """The working tree that `start` lies in, and its git directory."""
    for folder in (start, *start.parents):
        git = folder / ".git"
        if git.is_dir():
            return folder, git
        if git.is_file():  # a further working tree, or a submodule
            told = _read(git).strip()
            return (folder, folder / told[8:].strip()) if told.startswith("gitdir: ") else None
    return None


def _resolve(git: Path, reference: str) -> str:
    """The commit that a reference names; empty where it names none yet."""
    common = git / _read(git / "commondir").strip() if (git / "commondir").is_file() else git
    for folder in (git, common):
        with contextlib.suppress(OSError):
            return _read(folder / reference).strip()
    with contextlib.suppress(OSError):
        for line in _read(common / "packed-refs").splitlines():
            commit, _, name = line.partition(" ")
            if name == reference:
                return commit
    return ""


def _changed(tree: Path, git: Path, sources: Iterable[str]) -> list[str]:
    """Those of `sources` that git's index holds with another content; none where the index is of an odd form.

    An entry of the index (git's index-format, versions 2 and 3) is …, SHA-1, two bytes of flags with the length of
    the name, the name, and a NUL: so each is found by its name, without going through them all.
    """
    with contextlib.suppress(OSError):
        index = _read_bytes(git / "index", _MAX_INDEX_BYTES)
        if index[:4] != b"DIRC" or struct.unpack_from(">I", index, 4)[0] not in (2, 3):
            return []
        below = f"{str(tree).rstrip('/')}/"
        inside = sorted({path[len(below) :] for path in sources if path.startswith(below)})
        changed: list[str] = []
        for name in inside[:_MAX_SOURCES]:
            encoded = os.fsencode(name)
            at = index.find(struct.pack(">H", min(len(encoded), 0xFFF)) + encoded + b"\0", 12)
            if at < 20:
                continue  # git does not know it
            with contextlib.suppress(OSError):
                content = _read_bytes(tree / name, _MAX_SOURCE_BYTES)
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).digest()
                if blob != index[at - 20 : at]:
                    changed.append(name)
        return changed[:_MAX_CHANGED]
    return []


def _read(path: Path) -> str:
    return _read_bytes(path, _MAX_INDEX_BYTES).decode("utf-8", "replace")


def _read_bytes(path: Path, most: int) -> bytes:
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{path} is too long")
    return content


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _word(value: Any) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value))[:_MAX_TEXT]
