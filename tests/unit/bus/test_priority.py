"""Helpers let the training go first, and get back what is theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from allranks_bus import priority

PROGRAM = """
import sys
from pathlib import Path
from allranks_bus import priority
from allranks_bus.priority import stepping_back

def nice():
    return int(Path("/proc/self/autogroup").read_text().split()[-1])

priority._START_S = float(sys.argv[1])
before = nice()
with stepping_back():
    if sys.argv[1] == "60":
        meanwhile = nice()
    else:
        while nice() != before:
            pass
        meanwhile = before
print(before, meanwhile, nice())
"""


def _niceness(start_s: int) -> list[int]:
    """Of a session before, while and after it steps back; a session of its own, for it is changed."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(start_s)],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
        check=True,
    )
    return list(map(int, result.stdout.split()))


has_autogroups = Path("/proc/self/autogroup").exists()


@pytest.mark.skipif(not has_autogroups, reason="this kernel shares the processors among processes alone")
def test_a_session_that_starts_steps_back_and_is_then_as_before() -> None:
    before, meanwhile, after = _niceness(60)
    assert meanwhile > before
    assert after == before


@pytest.mark.skipif(not has_autogroups, reason="this kernel shares the processors among processes alone")
def test_a_start_that_takes_long_gets_its_share_after_a_while() -> None:
    before, _, after = _niceness(1)
    assert after == before


def test_a_session_is_as_before_though_the_kernel_lets_it_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes few of these writes in a second, from all processes together."""
    told: list[str] = []

    class Busy:
        """What refuses the first write after each that it has taken."""

        is_refusing = False

        def write_text(self, text: str) -> None:
            self.is_refusing = not self.is_refusing
            if self.is_refusing:
                raise BlockingIOError
            told.append(text)

    monkeypatch.setattr(priority, "_OF_SESSION", Busy())
    monkeypatch.setattr(priority, "_TRY_AGAIN_S", 0.0)
    with priority.stepping_back():
        assert len(told) == 1
    assert told[-1] == "0"
