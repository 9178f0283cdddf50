"""The settings of alerts: how they are written, and that what may be secret is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from allranks_bus.errors import SettingError
from allranks_collector.alerts.rules import CHOICES, DEFAULT_RULES
from allranks_collector.settings import load_settings


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ALLRANKS_HOME": str(tmp_path)}


def test_addresses_have_blanks_between_them_because_commas_may_be_in_them(env: dict[str, str]) -> None:
    env["ALLRANKS_ALERT_TARGETS"] = "slack://A/B/C  mailtos://me:secret@x?to=a,b"
    assert load_settings({}, env).alert_targets == ("slack://A/B/C", "mailtos://me:secret@x?to=a,b")


def test_only_what_an_address_begins_with_is_shown(env: dict[str, str]) -> None:
    settings = load_settings({"alert_targets": "slack://A/B/C"}, env)
    assert settings.described()["alert_targets"]["value"] == ["slack:…"]


def test_an_error_does_not_print_a_secret(env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({"alert_targets": "my-secret-token"}, env)
    assert "my-secret-token" not in str(caught.value)


def test_a_command_is_taken_apart_as_in_a_shell(env: dict[str, str]) -> None:
    assert load_settings({"alert_command": "page --to 'on call'"}, env).alert_command == ("page", "--to", "on call")


def test_a_file_may_have_lists(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('alert_targets = ["json://h/x"]\nalert_command = ["a b", "c"]\n')
    settings = load_settings({}, env)
    assert (settings.alert_targets, settings.alert_command) == (("json://h/x",), ("a b", "c"))


def test_all_rules_but_the_end_of_a_good_run_are_on(env: dict[str, str]) -> None:
    assert set(CHOICES) - set(load_settings({}, env).alert_rules) == {"run-finished"}
    assert load_settings({"alert_rules": "none"}, env).alert_rules == ()
    assert load_settings({}, env).alert_rules == DEFAULT_RULES
    with pytest.raises(SettingError, match="run-failed"):
        load_settings({"alert_rules": "ded"}, env)
