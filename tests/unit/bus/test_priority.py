"""Helpers let the training go first, and get back what is theirs."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from allranks_bus import priority


def test_a_module_is_imported_at_a_lower_priority_which_is_then_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_module.py").write_text(
        "import os, threading\nnice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    try:
        module = priority.import_stepping_back("heavy_module")
    finally:
        sys.modules.pop("heavy_module", None)
    assert module.nice > before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_goes_wrong_in_the_import_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_ours"):
        priority.import_stepping_back("no_such_module_of_ours")
