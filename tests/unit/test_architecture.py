"""The architecture, held: who imports whom, and what `import allranks` costs a training."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PACKAGES = {"bus": "allranks_bus", "sdk": "allranks", "collector": "allranks_collector"}
# Which of our packages each may import, beside itself.
_MAY_IMPORT = {"bus": set[str](), "sdk": {"allranks_bus"}, "collector": {"allranks_bus"}}

# What a training must not pay for, or fight with, by importing us.
_TOO_HEAVY = {
    "anyio", "trio", "asyncio", "torch", "numpy", "pandas", "duckdb", "fastapi", "starlette", "uvicorn", "pydantic",
    "typer", "rich", "multiprocessing", "concurrent.futures", "allranks_collector", "psutil", "pynvml",
}  # fmt: skip

# Prints what is there before and after the import: modules, threads, children, open descriptors, signal handlers.
_IMPORT = """
import json, os, signal, sys, threading

def state():
    return {
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                              if os.path.exists(f"/proc/self/fd/{fd}")),
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    }

before = state()
import allranks
print(json.dumps({"before": before, "after": state(), "modules": sorted(sys.modules)}))
"""


def _modules(folder: str) -> Iterator[Path]:
    yield from sorted((_ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """The first names of all that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("folder", _PACKAGES)
def test_a_folder_of_a_package_is_no_package(folder: str) -> None:
    """Else the folders themselves could be imported, and each module would have two names."""
    assert not (_ROOT / folder / "__init__.py").exists()
    assert (_ROOT / folder / _PACKAGES[folder] / "__init__.py").exists()
    assert (_ROOT / folder / _PACKAGES[folder] / "py.typed").exists()


@pytest.mark.parametrize("folder", _PACKAGES)
def test_nobody_imports_what_it_must_not(folder: str) -> None:
    """bus imports neither of the others; sdk and collector import only bus."""
    ours = set(_PACKAGES.values())
    allowed = _MAY_IMPORT[folder] | {_PACKAGES[folder]}
    wrong = {str(path.relative_to(_ROOT)): _imports(path) & ours - allowed for path in _modules(folder)}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("folder", ["bus", "sdk"])
def test_a_training_image_needs_no_more_than_is_installed(folder: str) -> None:
    """Whatever else is used must be there already (torch), or is optional (pynvml)."""
    # `sockets` is the collector's; the demo is a program of its own, with an extra of its own.
    modules = [path for path in _modules(folder) if "demo" not in path.parts and path.name != "sockets.py"]
    known = sys.stdlib_module_names | set(_PACKAGES.values()) | {"zmq", "msgpack", "psutil"}
    optional = {"pynvml", "torch", "lightning", "pytorch_lightning", "transformers", "accelerate"}
    assert {name for path in modules for name in _imports(path)} - known - optional == set()


@pytest.fixture(scope="module")
def imported() -> dict[str, dict[str, list[str]]]:
    """What a fresh process says about itself before and after `import allranks`."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], stdout=subprocess.PIPE, check=True, timeout=60)
    told: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return told


def test_importing_allranks_loads_nothing_heavy(imported: dict[str, list[str]]) -> None:
    """Neither what is slow to load, nor what a training must be free to load by itself."""
    assert "allranks" in imported["modules"]
    assert _TOO_HEAVY & set(imported["modules"]) == set()


def test_importing_allranks_leaves_the_process_as_it_was(imported: dict[str, dict[str, list[str]]]) -> None:
    """No thread, no child, no descriptor, no signal handler."""
    assert imported["after"] == imported["before"]


@pytest.mark.parametrize("folder", _PACKAGES)
def test_the_code_is_that_of_python_3_10(folder: str) -> None:
    """By its syntax; mypy, which is told of 3.10, knows what the standard library had."""
    for path in _modules(folder):
        tree = ast.parse(path.read_text(), str(path), feature_version=(3, 10))
        has_annotations = any(isinstance(node, ast.FunctionDef | ast.AnnAssign) for node in ast.walk(tree))
        assert "from __future__ import annotations" in path.read_text() or not has_annotations, path
