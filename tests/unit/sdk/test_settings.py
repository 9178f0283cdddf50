"""What a run is told: arguments that can never be right are refused, and variables that cannot be are said once."""

from __future__ import annotations

import pytest

from allranks import _warnings
from allranks._settings import RunSettings, run_settings
from allranks_bus.errors import SettingError
from allranks_bus.spool import CAP_BYTES

_MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_has_been_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_warnings, "_said", set())


def _of(**env: str) -> RunSettings:
    return run_settings(env, None, None, None)


@pytest.mark.parametrize("mode", ["fd", "wrap", "off"])
def test_the_console_is_kept_as_the_argument_or_the_variable_says(mode: str) -> None:
    assert run_settings({"ALLRANKS_CONSOLE": "fd"}, None, None, mode).console == mode
    assert _of(ALLRANKS_CONSOLE=mode).console == mode
    assert _of().console == "fd"


def test_another_console_is_refused_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingError, match=r"console='both' .* expected one of fd, wrap, off"):
        run_settings({}, None, None, "both")
    assert _of(ALLRANKS_CONSOLE="both").console == "fd"
    assert capsys.readouterr().err == "allranks: ALLRANKS_CONSOLE='both' is none of fd, wrap, off; fd is used\n"


def test_limits_are_numbers_of_mib() -> None:
    limits = _of(
        ALLRANKS_CONSOLE_RATE_MB="0.5", ALLRANKS_CONSOLE_BURST_MB="0", ALLRANKS_CONSOLE_MAX_MB="100"
    ).console_limits
    assert (limits.rate, limits.burst, limits.most) == (_MIB // 2, 0, 100 * _MIB)
    usual = _of().console_limits
    assert (usual.rate, usual.burst, usual.most) == (2 * _MIB, 64 * _MIB, 4096 * _MIB)


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e400", "2 MB"])
@pytest.mark.parametrize(
    ("variable", "usual"),
    [("ALLRANKS_CONSOLE_RATE_MB", "2"), ("ALLRANKS_CONSOLE_MAX_MB", "4096"), ("ALLRANKS_SPOOL_CAP_MB", "16384")],
)
def test_what_is_no_size_is_said_once_and_the_usual_one_is_used(
    text: str, variable: str, usual: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _of(**{variable: text})
    settings = _of(**{variable: text})
    assert vars(settings.console_limits) == vars(_of().console_limits)
    assert settings.spool_cap_bytes == CAP_BYTES
    said = capsys.readouterr().err
    assert said == f"allranks: {variable}={text!r} is not a number of MiB; {usual} is used\n"


def test_a_spool_has_room_for_its_segments() -> None:
    assert _of(ALLRANKS_SPOOL_CAP_MB="0.001").spool_cap_bytes == _MIB
