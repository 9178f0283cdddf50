"""Whatever is given to log(): nothing raises, and every plain number beside it is stored."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario
from tests.support.stored import Stored

# Two ways into the spool: where there may be tensors, log() looks at the types of what it is given first.
_KINDS = ("numbers", "tensors")


def _numbers(stored: Stored) -> dict[int, dict[str, float]]:
    """What is stored of each step, by name."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for step, key, value in stored.rows("SELECT step, key, value FROM points JOIN series USING (series)"):
        found[step][key] = value
    return found


def _others(stored: Stored) -> dict[int, dict[str, Any]]:
    """Text as it is; of an object its type."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for step, key, text in stored.rows("SELECT step, key, body FROM objects JOIN series USING (series)"):
        body = json.loads(text)
        found[step][key] = body if isinstance(body, str) else body["_type"]
    return found


@pytest.mark.parametrize("kind", _KINDS)
def test_odd_values_raise_nothing_and_cost_nothing_beside_them(home: Path, kind: str) -> None:
    ended = scenario.run(home, "odd_values.py", kind)
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    assert "Traceback" not in ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(told) > 100
    with scenario.stored(home) as stored:
        numbers, others = _numbers(stored), _others(stored)
    wrong: dict[str, Any] = {}
    for step, name, expected in told:
        at = numbers[step] | others[step]
        beside = {key: at.pop(key, None) for key in ("before", "after")}
        if beside != {"before": step, "after": step} or not _is_as_expected(at, expected):
            wrong[name] = (expected, beside, dict(list(at.items())[:5]))
    assert not wrong
    assert len(numbers[_step_of(told, "value: 50,000 values")]) == 50_002


# A Ctrl-C that comes while a value is asked for its number, on either way.
_INTERRUPTED = """
import allranks

class Interrupted:
    def __float__(self):
        raise KeyboardInterrupt

run = allranks.init()
run.log({"i": 0, "odd": 0.0}, 0)  # from here on they go the short way
passed = []
for step in range(1, 100):
    try:
        run.log({"i": step, "odd": Interrupted()} if step % 2 else {"i": step, "odd": 0.0}, step)
    except KeyboardInterrupt:
        passed.append(step)
try:
    run.log({"i": 100, "new": [Interrupted()]}, 100)
except KeyboardInterrupt:
    passed.append(100)
run.log({"i": 101}, 101)
print(passed == [*range(1, 100, 2), 100])
"""


def test_an_exception_that_is_not_ours_to_keep_passes_log_and_costs_its_event_only(home: Path) -> None:
    ended = scenario.run(home, _INTERRUPTED)
    ended.must_be_well()
    assert ended.stdout == "True\n"
    with scenario.stored(home) as stored:
        steps = [step for step, at in sorted(_numbers(stored).items()) if "i" in at]
        assert steps == [*range(0, 100, 2), 101]


def _step_of(told: list[Any], wanted: str) -> int:
    (step,) = (step for step, name, _ in told if name == wanted)
    return int(step)


def _is_as_expected(at: dict[str, Any], expected: Any) -> bool:
    """`at` is what is stored of a step, but for the numbers beside what is odd."""
    if isinstance(expected, dict):  # of an odd key: the name that it has become
        return at == expected
    value = at.get("odd")
    if expected == "nan":
        return isinstance(value, float) and math.isnan(value)
    return bool(value == expected)
