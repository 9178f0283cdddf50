"""A fork in the middle of an import by another thread leaves no lock behind in the child."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
assert started.wait(20)
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
