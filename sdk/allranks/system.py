"""Figures of this process, its host and its GPUs, each with its unit in the name.

Every source stands alone: one that fails costs none of the others, and nothing raises. psutil and NVML are
imported by the first sampler, never by importing this module.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from allranks_bus.home import is_network


@dataclass(frozen=True)
class _Counters:
    """Counters that only grow, at one time: what is charted is how fast."""

    time_s: float
    values: Mapping[str, float] = field(default_factory=dict[str, float])


class SystemSampler:
    """Samples this host's figures; the first look is taken at once, so that the first sample has rates.

    Args:
        pid: the process to look at; None for the one that samples.
        env: where CUDA_VISIBLE_DEVICES is read.
        clock: monotonic seconds.
        load: imports a module by name.
        cgroup_root, proc_root: where cgroup v2 and proc are mounted.
    """

    def __init__(
        self,
        pid: int | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        load: Callable[[str], Any] = importlib.import_module,
        cgroup_root: Path = Path("/sys/fs/cgroup"),
        proc_root: Path = Path("/proc"),
    ) -> None:
        self._pid = pid
        self._env = env
        self._clock = clock
        self._load = load
        self._cgroup_root = cgroup_root
        self._proc_root = proc_root
        self._before: dict[str, _Counters] = {}
        self._process: Any = None
        self._gpus: _Gpus | None = None
        self._owner = os.getpid()
        self._is_remote: dict[Path, bool] = {}
        for source in (self._process_cpu, self._host_cpu, self._net, self._disk):
            _safely(source)

    def sample(self) -> dict[str, float]:
        """The figures of now; what cannot be had on this machine is left out."""
        if os.getpid() != self._owner:  # forked: the parent's handles and counters are not ours
            self._owner, self._process, self._gpus, self._before = os.getpid(), None, None, {}
        figures: dict[str, float] = {}
        for source in (
            self._process_cpu,
            self._rss,
            self._threads,
            self._open_files,
            self._host_cpu,
            self._memory,
            self._cgroup,
            self._net,
            self._disk,
            self._disk_free,
            self._gpu,
        ):
            figures |= _safely(source)
        return figures

    # --- the process ---------------------------------------------------------------------------------------

    def _proc(self) -> Any:
        if self._process is None:
            self._process = self._load("psutil").Process(self._pid)
        return self._process

    def _process_cpu(self) -> dict[str, float]:
        times = self._proc().cpu_times()
        rate = self._rates("process", {"cpu": times.user + times.system}).get("cpu")
        return {} if rate is None else {"system/process/cpu_percent": 100 * rate}

    def _rss(self) -> dict[str, float]:
        return {"system/process/rss_bytes": float(self._proc().memory_info().rss)}

    def _threads(self) -> dict[str, float]:
        return {"system/process/threads": float(self._proc().num_threads())}

    def _open_files(self) -> dict[str, float]:
        return {"system/process/open_files": float(self._proc().num_fds())}

    # --- the host ------------------------------------------------------------------------------------------

    def _host_cpu(self) -> dict[str, float]:
        """Busy time of all cores. `psutil.cpu_percent` is not used: it shares its state with the user's calls."""
        times = self._load("psutil").cpu_times()._asdict()
        total = sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0)  # user holds them already
        idle = times["idle"] + times.get("iowait", 0)
        rates = self._rates("host", {"total": total, "busy": total - idle})
        if not rates.get("total"):
            return {}
        return {"system/host/cpu_percent": min(100.0, 100 * rates.get("busy", 0.0) / rates["total"])}

    def _memory(self) -> dict[str, float]:
        memory = self._load("psutil").virtual_memory()
        used = float(memory.total - memory.available)
        return {
            "system/host/memory_used_bytes": used,
            "system/host/memory_total_bytes": float(memory.total),
            "system/host/memory_percent": 100 * used / memory.total,
        }

    def _cgroup(self) -> dict[str, float]:
        """What the container may use, and uses: the tightest limit from this process's group up."""
        lines = (self._proc_root / str(self._pid or "self") / "cgroup").read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::")).strip("/")
        group = self._cgroup_root / path
        if not (group / "memory.current").exists():  # a container sees its own group as the root
            group = self._cgroup_root
        limits: list[tuple[float, float]] = []
        while True:
            limit = _read_number(group / "memory.max")
            used = _read_number(group / "memory.current")
            if limit is not None and used is not None:
                limits.append((limit, used))
            if group == self._cgroup_root:
                break
            group = group.parent
        limit, used = min(limits)
        return {
            "system/cgroup/memory_used_bytes": used,
            "system/cgroup/memory_limit_bytes": limit,
            "system/cgroup/memory_percent": 100 * used / limit,
        }

    def _net(self) -> dict[str, float]:
        cards = self._load("psutil").net_io_counters(pernic=True)
        real = [counters for name, counters in cards.items() if name != "lo"]
        counters = {
            "sent": float(sum(card.bytes_sent for card in real)),
            "recv": float(sum(card.bytes_recv for card in real)),
        }
        return {f"system/host/net_{name}_bytes_per_s": rate for name, rate in self._rates("net", counters).items()}

    def _disk(self) -> dict[str, float]:
        disks = self._load("psutil").disk_io_counters()
        rates = self._rates("disk", {"read": float(disks.read_bytes), "write": float(disks.write_bytes)})
        return {f"system/host/disk_{name}_bytes_per_s": rate for name, rate in rates.items()}

    def _disk_free(self) -> dict[str, float]:
        """Free space where the process works; a network file system is not asked: its server may be gone."""
        folder = Path.cwd()
        if folder not in self._is_remote:
            self._is_remote = {folder: is_network(folder)}
        if self._is_remote[folder]:
            return {}
        space = os.statvfs(folder)
        return {"system/host/disk_free_bytes": float(space.f_bavail * space.f_frsize)}

    # --- GPUs ----------------------------------------------------------------------------------------------

    def _gpu(self) -> dict[str, float]:
        if self._gpus is None:
            self._gpus = _Gpus(self._load, self._env.get("CUDA_VISIBLE_DEVICES"))
        return self._gpus.sample()

    def _rates(self, source: str, values: Mapping[str, float]) -> dict[str, float]:
        """How fast each counter grew since the last look, per second; one that went back was set anew."""
        now = self._clock()
        before = self._before.get(source)
        self._before[source] = _Counters(now, values)
        if before is None or now <= before.time_s:
            return {}
        return {
            name: (value - before.values[name]) / (now - before.time_s)
            for name, value in values.items()
            if value >= before.values[name]
        }


# name → what NVML is asked for
_GPU_FIGURES: Mapping[str, Callable[[Any, Any], float]] = {
    "util_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "memory_total_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    "power_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
}


class _Gpus:
    """The GPUs that this process may use, numbered as it numbers them itself (`cuda:0` is gpu/0).

    NVML is initialised here, once; where there is none, there are no GPUs, and it is not tried again.
    """

    def __init__(self, load: Callable[[str], Any], visible: str | None) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            self._nvml = load("pynvml")
            self._nvml.nvmlInit()
            self._handles = _visible_gpus(self._nvml, visible)
        except Exception:
            self._handles = []

    def sample(self) -> dict[str, float]:
        """All figures of all GPUs; what one of them does not support is left out."""
        figures: dict[str, float] = {}
        for number, gpu in enumerate(self._handles):
            for name, ask in _GPU_FIGURES.items():
                # A device may not support a figure (MIG, vGPU), or has fallen off the bus.
                figures |= _safely(partial(self._figure, f"system/gpu/{number}/{name}", ask, gpu))
        return figures

    def _figure(self, name: str, ask: Callable[[Any, Any], float], gpu: Any) -> dict[str, float]:
        return {name: float(ask(self._nvml, gpu))}


def _visible_gpus(nvml: Any, visible: str | None) -> list[Any]:
    """The handles that CUDA_VISIBLE_DEVICES names: indices, UUIDs or their beginnings; unset names all.

    As in CUDA, what follows the first name that is none is not visible (CUDA C Programming Guide, environment
    variables). Indices are taken in PCI order; on a host of unlike GPUs CUDA's own order may be another.
    """
    count = int(nvml.nvmlDeviceGetCount())
    if visible is None:
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    handles: list[Any] = []
    for name in map(str.strip, visible.split(",")):
        handle = _gpu_by_name(nvml, name, count)
        if handle is None:
            break
        handles.append(handle)
    return handles


def _gpu_by_name(nvml: Any, name: str, count: int) -> Any:
    if name.isascii() and name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name)) if int(name) < count else None
    if name.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    if name.startswith("GPU-"):
        for index in range(count):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(handle)
            if (uuid.decode() if isinstance(uuid, bytes) else str(uuid)).startswith(name):
                return handle
    return None


def _read_number(path: Path) -> float | None:
    """The number in this file; None where there is none (`max`)."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _safely(source: Callable[[], dict[str, float]]) -> dict[str, float]:
    try:
        return source()
    except Exception:  # this source is not to be had here, or not now: the others are
        return {}
