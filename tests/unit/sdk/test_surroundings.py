"""What a rank says of its surroundings: once, bounded, without secrets, and from files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.spools import of_kind, spooled
from tests.support.waiting import wait_until

import allranks
from allranks import _companions, _surroundings
from allranks._surroundings import PARTS, Surroundings, bounded, environment, git_state, packages, visible
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.limits import MAX_SURROUNDINGS_BYTES


class Kept:
    """A log that only remembers."""

    def __init__(self, *, is_suspended: bool = False) -> None:
        self.is_suspended = is_suspended
        self.told: list[dict[str, Any]] = []

    def append_ours(self, payload: bytes) -> bool:
        kind, _, body = events.unpack(payload)
        assert kind == Kind.SURROUNDINGS
        self.told.append(body)
        return True


def said_by(log: Kept, ticks: int = 30) -> list[dict[str, Any]]:
    surroundings = Surroundings(log)
    for _ in range(ticks):
        surroundings.tick()
    return log.told


def test_all_parts_are_said_once() -> None:
    (body,) = said_by(Kept())
    assert body["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert body["host"]["name"] == os.uname().nodename
    assert {"pytest", "msgpack"} <= set(body["packages"])


def test_a_part_that_cannot_be_had_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError

    monkeypatch.setattr(_surroundings, "PARTS", {"git": fails, **_surroundings.PARTS, "host": fails})
    (body,) = said_by(Kept())
    assert "host" not in body
    assert "python" in body


def test_nothing_is_said_to_a_log_that_takes_nothing() -> None:
    log = Kept(is_suspended=True)
    surroundings = Surroundings(log)
    for _ in range(30):
        surroundings.tick()
    assert log.told == []
    log.is_suspended = False
    surroundings.tick()
    assert len(log.told) == 1


def test_secrets_are_never_kept() -> None:
    env = {
        "NCCL_DEBUG": "INFO",
        "HF_TOKEN": "a",
        "TORCH_API_KEY": "b",
        "ALLRANKS_PASSWORD": "c",
        "CUDA_VISIBLE_DEVICES": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "ALLRANKS_URL": "tcp://user:word@host:5571",
        "HOME": "/root",
        "WANDB_API_KEY": "d",
    }
    assert environment(env) == {
        "ALLRANKS_URL": "tcp://…@host:5571",
        "CUDA_VISIBLE_DEVICES": "0",
        "NCCL_DEBUG": "INFO",
        "TOKENIZERS_PARALLELISM": "false",
    }


def test_packages_are_those_imported_by_the_names_of_their_folders(tmp_path: Path) -> None:
    for name in ("torch-2.4.0+cu121.dist-info", "PyYAML-6.0.dist-info", "unused-1.0.dist-info", "odd.dist-info"):
        (tmp_path / name).mkdir()
    found = packages(["torch.nn", "torch", "yaml", "os", "mine"], [str(tmp_path), "/nowhere"])
    assert found == {"PyYAML": "6.0", "torch": "2.4.0+cu121"}


def test_what_is_too_much_is_left_out_the_largest_first() -> None:
    told: dict[str, Any] = {"env": {"A": "x" * 80_000}, "git": {"revision": "a"}}
    assert bounded(told) == {"git": {"revision": "a"}, "left_out": ["env"]}
    assert len(json.dumps(bounded({str(n): "y" * 3000 for n in range(100)}))) <= MAX_SURROUNDINGS_BYTES


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("1,-1,2", [1]),
        ("GPU-b,GPU-a", [1, 0]),
        ("1,1", [1]),
        ("3", []),
        ("GPU-", []),
    ],
)
def test_the_devices_that_a_process_sees_are_in_its_own_order(told: str | None, found: list[int]) -> None:
    assert visible(told, ["GPU-a1", "GPU-b1", "GPU-c1"]) == found


def test_devices_are_told_as_the_process_sees_them_and_which_of_them_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    def running(handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=os.getpid() if handle == "2" else 1)]

    nvml = SimpleNamespace(
        __spec__=None,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=str,
        nvmlDeviceGetUUID="GPU-{}".format,
        nvmlDeviceGetName=dict.fromkeys("012", b"NVIDIA H100").__getitem__,
        nvmlDeviceGetComputeRunningProcesses=running,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert PARTS["devices"]() == {
        "visible": [
            {"index": 2, "name": "NVIDIA H100", "uuid": "GPU-2"},
            {"index": 1, "name": "NVIDIA H100", "uuid": "GPU-1"},
        ],
        "used": [2],
    }


def test_gpus_are_told_by_driver_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = SimpleNamespace(
        __spec__=None,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 8,
        nvmlSystemGetCudaDriverVersion=lambda: 12040,
        nvmlDeviceGetHandleByIndex=str,
        nvmlDeviceGetName={str(index): b"NVIDIA H200" for index in range(8)}.__getitem__,
        nvmlSystemGetDriverVersion=lambda: "550.54.15",
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (body,) = said_by(Kept())
    assert body["gpu"] == {"driver": "550.54.15", "cuda": "12.4", "models": ["NVIDIA H200"], "count": 8}


def git(folder: Path, *words: str) -> str:
    who = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for role in ("AUTHOR", "COMMITTER"):
        who |= {f"GIT_{role}_NAME": "x", f"GIT_{role}_EMAIL": "x@y"}
    done = subprocess.run(
        ("git", "-C", str(folder), *words), env={**os.environ, **who}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with one commit on the branch `main`."""
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.py").write_text("1\n")
    (folder / "sub" / "b.py").write_text("2\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return folder


def test_the_commit_is_read_from_wherever_it_lies(tree: Path, tmp_path: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD")
    expected = {"branch": "main", "revision": commit}
    assert git_state(tree / "sub", []) == expected
    git(tree, "pack-refs", "--all")
    assert git_state(tree, []) == expected
    git(tree, "worktree", "add", "-q", "-b", "other", str(tmp_path / "second"))
    assert git_state(tmp_path / "second", []) == {"branch": "other", "revision": commit}
    git(tree, "checkout", "-q", "--detach")
    assert git_state(tree, []) == {"revision": commit}


def test_outside_of_any_working_tree_there_is_none(tmp_path: Path) -> None:
    assert git_state(tmp_path, []) == {}


def test_loaded_sources_that_are_not_as_committed_are_named(tree: Path) -> None:
    sources = [str(tree / name) for name in ("a.py", "sub/b.py", "new.py")]
    assert "changed" not in git_state(tree, sources)
    (tree / "sub" / "b.py").write_text("3\n")
    (tree / "new.py").write_text("not known to git\n")
    assert git_state(tree, sources)["changed"] == ["sub/b.py"]


def test_an_index_of_another_form_says_nothing(tree: Path) -> None:
    (tree / "a.py").write_text("other\n")
    git(tree, "update-index", "--index-version", "4")
    assert "changed" not in git_state(tree, [str(tree / "a.py")])


def test_a_rank_says_them_by_itself(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_companions, "_SURROUNDINGS_AFTER_S", 0.0)
    allranks.init(project="p", mode="offline")

    def said() -> list[Any]:
        return of_kind(spooled(sdk_home / "spool"), Kind.SURROUNDINGS)

    wait_until(lambda: bool(said()), "the surroundings are said", timeout_s=60)
    ((_, _, body),) = said()
    assert body["host"]["name"] == os.uname().nodename


def test_the_modules_of_init_do_not_know_them() -> None:
    program = "import sys, allranks; allranks.init(mode='disabled'); print('allranks._surroundings' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
