"""System figures: what this machine has, at the rates its counters tell, and GPUs through a double of NVML."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from allranks.system import SystemSampler


class Unsupported(Exception):
    """As NVML's error where a device lacks a figure."""


class FakeNvml:
    """NVML with some GPUs: a handle is its UUID. Counts how often it was initialised."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, uuids: tuple[str, ...] = ("GPU-aa11", "GPU-aa22", "GPU-bb33")) -> None:
        self.uuids = uuids
        self.inits = 0
        self.broken: set[str] = set()

    def nvmlInit(self) -> None:  # noqa: N802  (NVML's own names)
        self.check("nvmlInit")
        self.inits += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not uuid.startswith("MIG-"):
            raise Unsupported
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> bytes:  # noqa: N802
        return handle.encode()

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        self.check("util")
        if handle.startswith("MIG-"):
            raise Unsupported
        return SimpleNamespace(gpu=self._number(handle))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(used=1000 + self._number(handle), total=2000)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 1500 * self._number(handle)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 40 + self._number(handle)

    def _number(self, handle: str) -> int:
        return 50 if handle.startswith("MIG-") else self.uuids.index(handle)

    def check(self, name: str) -> None:
        if name in self.broken:
            raise Unsupported


def loader(**modules: object) -> Callable[[str], Any]:
    """Imports as usual, but these modules are the given ones; None is a module that is not installed."""

    def load(name: str) -> Any:
        if name not in modules:
            return importlib.import_module(name)
        if modules[name] is None:
            raise ImportError(name)
        return modules[name]

    return load


class FakePsutil:
    """psutil with counters that the test moves; `broken` names what raises."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.cpu = {"user": 10.0, "system": 5.0, "idle": 80.0, "iowait": 5.0, "guest": 2.0, "guest_nice": 0.0}
        self.own_cpu = 3.0
        self.net = {"lo": (9_000, 9_000), "eth0": (100, 200), "eth1": (10, 20)}
        self.disk: tuple[int, int] = (1_000, 2_000)

    def check(self, name: str) -> None:
        if name in self.broken:
            raise OSError(name)

    def Process(self, pid: int | None) -> FakeProcess:  # noqa: N802  (psutil's own name)
        return FakeProcess(self, pid)

    def cpu_times(self) -> Any:
        self.check("cpu_times")
        return SimpleNamespace(_asdict=lambda: dict(self.cpu))

    def virtual_memory(self) -> Any:
        self.check("virtual_memory")
        return SimpleNamespace(total=1_000, available=250)

    def net_io_counters(self, pernic: bool) -> Any:
        self.check("net_io_counters")
        assert pernic
        return {name: SimpleNamespace(bytes_sent=sent, bytes_recv=recv) for name, (sent, recv) in self.net.items()}

    def disk_io_counters(self) -> Any:
        self.check("disk_io_counters")
        return SimpleNamespace(read_bytes=self.disk[0], write_bytes=self.disk[1])


class FakeProcess:
    """A process of FakePsutil."""

    def __init__(self, psutil: FakePsutil, pid: int | None) -> None:
        self._psutil = psutil
        self.pid = pid

    def cpu_times(self) -> Any:
        self._psutil.check("process")
        return SimpleNamespace(user=self._psutil.own_cpu, system=1.0)

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=4096)

    def num_threads(self) -> int:
        return 7

    def num_fds(self) -> int:
        self._psutil.check("num_fds")
        return 11


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def gpus(visible: str | None, nvml: FakeNvml | None = None) -> dict[str, float]:
    """The GPU figures with this CUDA_VISIBLE_DEVICES."""
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    sample = SystemSampler(env=env, load=loader(pynvml=nvml or FakeNvml())).sample()
    return {name: value for name, value in sample.items() if name.startswith("system/gpu/")}


def test_this_machine_has_figures_with_their_unit_in_the_name() -> None:
    sample = SystemSampler().sample()
    assert sample["system/process/rss_bytes"] > 1_000_000
    assert sample["system/process/threads"] >= 1
    assert sample["system/process/open_files"] >= 3
    assert 0 < sample["system/host/memory_percent"] < 100
    assert all(type(value) is float for value in sample.values())
    units = ("_bytes", "_percent", "_bytes_per_s", "_watts", "_c", "/threads", "/open_files")
    assert all(name.endswith(units) for name in sample)


def test_another_process_can_be_looked_at() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        theirs = SystemSampler(child.pid).sample()
        child.communicate()
    assert theirs["system/process/threads"] == 1.0


def test_a_process_that_is_gone_costs_only_its_own_figures() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    sample = SystemSampler(child.pid).sample()
    assert not [name for name in sample if name.startswith("system/process/")]
    assert "system/host/memory_percent" in sample


def test_rates_are_those_since_the_last_look() -> None:
    psutil, clock = FakePsutil(), Clock()
    sampler = SystemSampler(load=loader(psutil=psutil, pynvml=None), clock=clock)
    clock.now += 2
    psutil.own_cpu += 1
    psutil.cpu |= {"user": 14.0, "idle": 84.0}
    psutil.net |= {"lo": (90_000, 90_000), "eth0": (300, 1_200)}
    psutil.disk = (5_000, 2_000)
    sample = sampler.sample()
    assert {name: sample[name] for name in sample if name.endswith(("cpu_percent", "per_s"))} == {
        "system/process/cpu_percent": 50.0,
        "system/host/cpu_percent": 50.0,
        "system/host/net_sent_bytes_per_s": 100.0,
        "system/host/net_recv_bytes_per_s": 500.0,
        "system/host/disk_read_bytes_per_s": 2_000.0,
        "system/host/disk_write_bytes_per_s": 0.0,
    }


def test_without_time_between_there_are_no_rates() -> None:
    sample = SystemSampler(load=loader(psutil=FakePsutil(), pynvml=None), clock=Clock()).sample()
    assert not [name for name in sample if name.endswith(("cpu_percent", "per_s"))]


def test_a_counter_that_went_back_gives_no_rate_once() -> None:
    psutil, clock = FakePsutil(), Clock()
    sampler = SystemSampler(load=loader(psutil=psutil, pynvml=None), clock=clock)
    del psutil.net["eth0"]
    clock.now += 1
    assert "system/host/net_sent_bytes_per_s" not in sampler.sample()
    clock.now += 1
    assert sampler.sample()["system/host/net_sent_bytes_per_s"] == 0.0


@pytest.mark.parametrize(
    ("broken", "lost"),
    [
        ("cpu_times", {"system/host/cpu_percent"}),
        ("virtual_memory", {f"system/host/memory_{name}" for name in ("used_bytes", "total_bytes", "percent")}),
        ("net_io_counters", {"system/host/net_sent_bytes_per_s", "system/host/net_recv_bytes_per_s"}),
        ("disk_io_counters", {"system/host/disk_read_bytes_per_s", "system/host/disk_write_bytes_per_s"}),
        ("num_fds", {"system/process/open_files"}),
        ("process", {"system/process/cpu_percent"}),
    ],
)
def test_one_source_that_fails_costs_none_of_the_others(broken: str, lost: set[str]) -> None:
    def sample(*names: str) -> set[str]:
        psutil, clock = FakePsutil(), Clock()
        psutil.broken = set(names)
        sampler = SystemSampler(load=loader(psutil=psutil, pynvml=None), clock=clock)
        clock.now += 1
        psutil.cpu["idle"] += 1
        return set(sampler.sample())

    assert sample() - sample(broken) == lost


def test_without_psutil_and_nvml_nothing_raises() -> None:
    sample = SystemSampler(load=loader(psutil=None, pynvml=None)).sample()
    assert not [name for name in sample if name.startswith(("system/process", "system/gpu"))]


# --- GPUs ------------------------------------------------------------------------------------------------------


def test_a_gpu_has_its_figures() -> None:
    assert gpus("1") == {
        "system/gpu/0/util_percent": 1.0,
        "system/gpu/0/memory_used_bytes": 1001.0,
        "system/gpu/0/memory_total_bytes": 2000.0,
        "system/gpu/0/power_watts": 1.5,
        "system/gpu/0/temperature_c": 41.0,
    }


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,9,1", [0]),
        ("GPU-bb33", [2]),
        ("GPU-bb", [2]),
        ("GPU-aa22,GPU-aa11", [1, 0]),
        ("GPU-zz", []),
    ],
)
def test_only_the_gpus_that_this_process_can_see_are_sampled(visible: str | None, seen: list[int]) -> None:
    figures = gpus(visible)
    utils = [value for name, value in figures.items() if name.endswith("/util_percent")]
    assert utils == seen
    assert {name.split("/")[2] for name in figures} == set(map(str, range(len(seen))))


def test_a_figure_that_a_device_lacks_costs_none_of_its_others() -> None:
    figures = gpus("MIG-1234")
    assert "system/gpu/0/util_percent" not in figures
    assert figures["system/gpu/0/memory_used_bytes"] == 1050.0


def test_nvml_is_initialised_by_the_first_sample_and_only_once() -> None:
    nvml = FakeNvml()
    sampler = SystemSampler(env={}, load=loader(pynvml=nvml))
    assert nvml.inits == 0
    sampler.sample()
    sampler.sample()
    assert nvml.inits == 1


def test_nvml_without_a_driver_means_no_gpus_and_is_not_tried_again() -> None:
    nvml = FakeNvml()
    nvml.broken = {"nvmlInit"}
    sampler = SystemSampler(env={}, load=loader(pynvml=nvml))
    assert not [name for name in sampler.sample() if "gpu" in name]
    nvml.broken = set()
    sampler.sample()
    assert nvml.inits == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of fork beside pytest's threads
def test_a_forked_child_initialises_nvml_anew() -> None:
    nvml = FakeNvml()
    sampler = SystemSampler(env={}, load=loader(pynvml=nvml))
    sampler.sample()
    child = os.fork()
    if child == 0:
        sample = sampler.sample()
        has_own_figures = "system/process/rss_bytes" in sample and "system/gpu/0/util_percent" in sample
        os._exit(nvml.inits if has_own_figures else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


# --- cgroup ----------------------------------------------------------------------------------------------------


def cgroup_sample(root: Path, group: str = "0::/") -> dict[str, float]:
    """The figures of a process in this group, with `root` as /sys/fs/cgroup."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"4:memory:/old\n{group}\n")
    sample = SystemSampler(load=loader(pynvml=None), cgroup_root=root, proc_root=root / "proc").sample()
    return {name: value for name, value in sample.items() if name.startswith("system/cgroup/")}


def test_a_containers_memory_limit_is_told(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert cgroup_sample(tmp_path) == {
        "system/cgroup/memory_used_bytes": 500.0,
        "system/cgroup/memory_limit_bytes": 2000.0,
        "system/cgroup/memory_percent": 25.0,
    }


def test_the_tightest_limit_of_the_groups_above_counts(tmp_path: Path) -> None:
    for folder, limit, used in (("a", "1000", "700"), ("a/b", "max", "400"), ("a/b/c", "3000", "300")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(limit)
        (tmp_path / folder / "memory.current").write_text(used)
    figures = cgroup_sample(tmp_path, "0::/a/b/c")
    assert figures["system/cgroup/memory_limit_bytes"] == 1000.0
    assert figures["system/cgroup/memory_used_bytes"] == 700.0


def test_a_container_that_is_told_its_hosts_path_sees_its_group_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("2000")
    (tmp_path / "memory.current").write_text("500")
    assert cgroup_sample(tmp_path, "0::/kubepods/pod1")["system/cgroup/memory_limit_bytes"] == 2000.0


def test_a_group_without_a_limit_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert cgroup_sample(tmp_path) == {}


def test_without_cgroup_v2_nothing_is_told(tmp_path: Path) -> None:
    assert cgroup_sample(tmp_path) == {}


def test_importing_the_module_loads_neither_psutil_nor_nvml() -> None:
    code = "import sys, allranks.system; sys.exit(any(m in sys.modules for m in ('psutil', 'pynvml')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
