"""What is understood of an OPEN record, in which anything may stand."""

from __future__ import annotations

from typing import Any

import pytest

from allranks_collector.openings import process_of, wrapper_of


@pytest.mark.parametrize("wild", [None, "1", -1, 2**63, 1.0, True, b"1", []])
def test_an_identity_that_tells_no_process_names_none(wild: Any) -> None:
    process = process_of({"pid": wild, "pid_start": wild, "boot_id": 5, "pid_ns": wild})
    assert (process.pid, process.start, process.boot_id, process.pid_ns) == (0, 0, "", 0)
    assert not process.is_visible


@pytest.mark.parametrize(
    ("told", "wrapper"),
    [([11, 22], (11, 22)), ([11], None), ("11", None), ([True, 2], None), ({}, None), (None, None)],
)
def test_what_a_writer_says_of_its_wrapper_may_be_anything(told: Any, wrapper: tuple[int, int] | None) -> None:
    assert wrapper_of({"wrapper": told}) == wrapper
