"""What `python -m benchmarks` chooses and where it keeps what."""

from __future__ import annotations

import importlib

import pytest
from benchmarks import __main__ as command
from benchmarks.figures import Figure, Measured, Options, at_most


@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_each_benchmark_can_be_imported_and_measures(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_only_whole_runs_are_kept_for_comparing() -> None:
    whole, part = command.result_paths(is_whole=True), command.result_paths(is_whole=False)
    assert {path.parent.name for path in whole} == {"results"}
    assert whole[1].name == "latest.json"
    assert [path.parent.name for path in part] == ["scratch"]


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["log_cal"])
    assert "log_cal" in capsys.readouterr().err


def test_a_failure_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """One benchmark that cannot run must not cost the others."""

    def fail(options: Options) -> Measured:
        raise RuntimeError("no collector")

    monkeypatch.setattr("benchmarks.query.measure", fail)
    result = command.run_one("query", Options())
    assert result.measured is None
    assert result.error == "RuntimeError: no collector"
    assert command.exit_code([result]) == 1


@pytest.mark.parametrize(("value", "wanted"), [(1.0, 0), (3.0, 1)])
def test_a_missed_bound_fails_the_command(monkeypatch: pytest.MonkeyPatch, value: float, wanted: int) -> None:
    def measure(options: Options) -> Measured:
        return Measured([Figure("f", value, "ms", at_most(2))])

    monkeypatch.setattr("benchmarks.query.measure", measure)
    assert command.exit_code([command.run_one("query", Options())]) == wanted
