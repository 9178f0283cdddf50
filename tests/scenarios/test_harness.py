"""The harness itself: a program that hangs, or leaves something behind, fails its test, and says how."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import scenario

_HANGING = """
import threading

def wait_for_nobody():
    threading.Event().wait()

print("waiting", flush=True)
wait_for_nobody()
"""

_LEAVING = """
import subprocess
subprocess.Popen(["sleep", "60"], start_new_session=True)
"""


def test_a_program_that_hangs_is_ended_and_its_stack_is_shown(home: Path) -> None:
    with scenario.started(home, _HANGING) as program:
        program.await_line("waiting")
        with pytest.raises(AssertionError, match="wait_for_nobody"):
            program.wait(1)
    assert program.process.returncode is not None


def test_what_a_program_leaves_behind_is_named_and_ended(home: Path) -> None:
    ended = scenario.run(home, _LEAVING)
    assert list(ended.left.values()) == ["sleep 60"]
    with pytest.raises(AssertionError, match="left behind"):
        ended.must_be_well()
