"""`agree`: what is kept of a value that all ranks should have alike; never a wait, never an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.spools import of_kind, spooled

import allranks
from allranks._agree import agreed
from allranks_bus.events import Kind


def kept(home: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(step, fields) for _, _, step, fields in of_kind(spooled(home / "spool"), Kind.LOG)]


def test_it_is_kept_at_the_newest_step_or_at_the_one_given(sdk_home: Path) -> None:
    run = allranks.init(project="p", mode="offline")
    run.agree("seed", 1)
    run.log({"loss": 1}, step=41)
    run.agree("hash", "abc")
    allranks.agree("hash", "abd", step=7)
    assert kept(sdk_home) == [
        (0, {"agree/seed": {"_type": "agree", "value": 1}}),
        (41, {"agree/hash": {"_type": "agree", "value": "abc"}}),
        (7, {"agree/hash": {"_type": "agree", "value": "abd"}}),
    ]


def test_it_takes_no_step(sdk_home: Path) -> None:
    run = allranks.init(project="p", mode="offline")
    run.log({"loss": 1})
    run.agree("hash", 1, step=99)
    run.log({"loss": 1})
    steps = [event[2] for event in of_kind(spooled(sdk_home / "spool"), Kind.METRICS)]
    assert steps == [0, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (0.5, 0.5),
        (True, True),
        ("a", "a"),
        (2**70, str(2**70)),
        (b"\x01\xff", "01ff"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (torch.tensor(2), 2),
    ],
)
def test_values_of_all_kinds(value: Any, expected: Any) -> None:
    assert agreed(value) == expected


def test_long_texts_that_differ_at_their_end_differ() -> None:
    one, other = agreed("x" * 5000 + "1"), agreed("x" * 5000 + "2")
    assert one != other
    assert len(one) < 256


@pytest.mark.parametrize("value", [None, [1], np.zeros(3), object(), torch.zeros((), device="meta")])
def test_what_cannot_be_compared_gives_one_warning_and_no_more(
    sdk_home: Path, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = allranks.init(project="p", mode="offline")
    run.agree("x", value)
    run.agree("x", value)
    assert capsys.readouterr().err.count("agree('x') is not kept") == 1
    assert kept(sdk_home) == []


@pytest.mark.parametrize("step", [2**63, "no step", None])
def test_a_step_that_is_none_never_raises(sdk_home: Path, step: Any) -> None:
    run = allranks.init(project="p", mode="offline")
    run.agree("x" * 5000, 1, step=step)
    assert len(kept(sdk_home)) == (step is None)
