"""What a process says of itself when it opens its log."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.spools import of_kind, spooled

import allranks
from allranks._opening import scheduler_of, wrapper_of
from allranks.parents import WRAPPER_VARIABLE
from allranks_bus.events import Kind


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"SLURM_JOB_ID": "7"}, "slurm"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"HOME": "/root"}, None),
    ],
)
def test_what_runs_the_job_is_known_by_what_it_sets(env: dict[str, str], name: str | None) -> None:
    assert scheduler_of(env) == name


@pytest.mark.parametrize(
    ("text", "wrapper"), [("r1:launch:boot:11:22:0:1", [11, 22]), ("other:launch:boot:11:22:0:1", None), ("", None)]
)
def test_a_command_names_the_process_that_runs_it_for_the_same_run(text: str, wrapper: list[int] | None) -> None:
    assert wrapper_of({WRAPPER_VARIABLE: text}, "r1") == wrapper


@pytest.mark.parametrize("jobs", [{"LSB_JOBID": "7"}, {}])
def test_an_opening_names_the_scheduler_if_there_is_one(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch, jobs: dict[str, str]
) -> None:
    for name, value in jobs.items():
        monkeypatch.setenv(name, value)
    allranks.init(project="p", mode="offline").finish()
    ((_, _, opening),) = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert opening.get("scheduler") == ("lsf" if jobs else None)
