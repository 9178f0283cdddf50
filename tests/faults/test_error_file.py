"""What torchelastic's error file of a rank says is known after its end, also where the collector is elsewhere."""

from __future__ import annotations

import contextlib
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario
from tests.support.collector import CollectorProcess
from tests.support.waiting import wait_until

# As `@record` does it, but without torch; then it ends without a word to anybody.
_RECORDING = """
import json, os, traceback
import allranks

run = allranks.init(project="boring")
run.log({"loss": 1.0})
try:
    raise KeyError("weights")
except KeyError as error:
    told = {"message": f"KeyError: {error}", "extraInfo": {"py_callstack": traceback.format_exc(), "timestamp": "17"}}
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
        json.dump({"message": told}, file)
os._exit(1)
"""


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["own collector", "collector elsewhere"])
def test_what_a_rank_recorded_before_it_went_is_why(
    collector: CollectorProcess, tmp_path: Path, is_elsewhere: bool
) -> None:
    """A collector sees the spools of its own home alone: from another only what is sent comes to it."""
    home = tmp_path / "another" / "home" if is_elsewhere else collector.home
    env = {
        "ALLRANKS_URL": collector.url,
        "ALLRANKS_RUN_ID": "recorded",
        "TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json"),
    }

    def ask() -> dict[str, Any] | None:
        with contextlib.suppress(urllib.error.HTTPError):  # nobody knows the run yet
            first: dict[str, Any] | None = collector.get("/api/runs/recorded/why")["first"]
            return first if first is not None and first["exception"] is not None else None
        return None

    with scenario.started(home, _RECORDING, env=env) as program:
        assert program.wait().exit_code == 1
        first = wait_until(ask, "its error file is known", timeout_s=60.0)
    assert (first["kind"], first["cause"]) == ("exception", "KeyError: 'weights'")
    assert 'raise KeyError("weights")' in first["exception"]["traceback"]
