"""What our imports cost the training: no lock that is left behind in a child, and no garbage collection."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import allranks
from allranks import _current, identity
from allranks._loading import undisturbed
from allranks.identity import identify

SLOW_MODULE = """
import threading, sys
started = sys.modules["__main__"].started
started.set()
import time
time.sleep(0.5)
value = 42
"""

PROGRAM = """
import os, sys, threading
import allranks
from allranks import _loading

allranks.init(project="p", mode="offline")
started = threading.Event()
threading.Thread(target=_loading.load, args=("slow_module",)).start()
assert started.wait(60)
child = os.fork()
if child == 0:
    import slow_module
    os._exit(slow_module.value)
_, status = os.waitpid(child, 0)
allranks.finish()
sys.exit(0 if os.waitstatus_to_exitcode(status) == 42 else 1)
"""


def test_a_child_forked_during_a_late_import_can_import_the_same(sdk_home: Path) -> None:
    (sdk_home / "slow_module.py").write_text(SLOW_MODULE)
    (sdk_home / "program.py").write_text(PROGRAM)
    result = subprocess.run(
        [sys.executable, "program.py"], cwd=sdk_home, env=dict(os.environ), timeout=60, check=False
    )
    assert result.returncode == 0


def test_garbage_is_collected_again_where_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt), undisturbed():
        assert not gc.isenabled()
        raise KeyboardInterrupt
    assert gc.isenabled()


def test_a_training_that_collects_garbage_by_itself_goes_on_to() -> None:
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_init_and_the_joining_of_a_rank_hold_collections_off(sdk_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind many objects a full one takes longer than all that they do."""
    seen: list[bool] = []

    def identified(*args: Any, **told: Any) -> Any:
        seen.append(gc.isenabled())
        return identify(*args, **told)

    monkeypatch.setattr(identity, "identify", identified)
    allranks.init(mode="offline").finish()
    for name, value in {"ALLRANKS_MODE": "offline", "RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_current, "_current", None)
    allranks.log({"a": 1.0})
    assert allranks.run.is_started
    assert len(seen) == 3
    assert not any(seen)
    assert gc.isenabled()
