"""Settings: the order of their places, what each value says of its source, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allranks_bus.errors import SettingError
from allranks_collector.settings import TABLE, Settings, is_loopback, load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ALLRANKS_HOME": str(tmp_path / "home"), "ALLRANKS_SPOOL": str(tmp_path / "spool")}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_need_nothing_but_a_home(env: dict[str, str], tmp_path: Path) -> None:
    settings = load_settings({}, env)
    assert (settings.host, settings.http_port, settings.data_port) == ("127.0.0.1", 5570, 5571)
    assert settings.database == tmp_path / "home" / "allranks.duckdb"
    assert settings.spool == tmp_path / "spool"
    assert settings.files == tmp_path / "home" / "files"
    assert settings.max_file_mb is None
    assert (settings.file_versions, settings.files_reserve_mb) == (1, None)
    assert settings.idle_exit_s is None


def test_every_default_can_be_read_back_by_its_own_kind(env: dict[str, str]) -> None:
    settings = load_settings({}, env)
    for row in TABLE:
        value = getattr(settings, row.name)
        if value is not None:
            assert row.kind.parse(value) == value, row.name


def test_flag_beats_env_beats_file_beats_default(env: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "http_port = 1003\nthreads = 3\nstall_min_s = 3\n")
    env |= {"ALLRANKS_HTTP_PORT": "1002", "ALLRANKS_THREADS": "4"}
    settings = load_settings({"http_port": "1001"}, env, file)
    assert (settings.http_port, settings.threads, settings.stall_min_s) == (1001, 4, 3.0)
    assert settings.sources["http_port"] == "flag --http-port"
    assert settings.sources["threads"] == "env ALLRANKS_THREADS"
    assert settings.sources["stall_min_s"] == f"file {file}"
    assert settings.sources["stall_factor"] == "default"


def test_a_flag_of_none_was_not_given(env: dict[str, str]) -> None:
    assert load_settings({"threads": None}, env | {"ALLRANKS_THREADS": "5"}).threads == 5


def test_an_empty_variable_counts_as_absent(env: dict[str, str]) -> None:
    assert load_settings({}, env | {"ALLRANKS_THREADS": ""}).sources["threads"] == "default"


def test_the_file_in_home_is_found(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "home" / "config.toml", 'log_level = "debug"\n')
    assert load_settings({}, env).log_level == "debug"


def test_home_as_a_flag_moves_what_lies_in_it(env: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "other" / "config.toml", "threads = 7\n")
    settings = load_settings({"home": str(tmp_path / "other")}, env)
    assert settings.database == tmp_path / "other" / "allranks.duckdb"
    assert settings.threads == 7


def test_home_from_a_named_file_moves_what_lies_in_it(env: dict[str, str], tmp_path: Path) -> None:
    del env["ALLRANKS_HOME"]
    env["ALLRANKS_CONFIG"] = str(write(tmp_path / "a.toml", f'home = "{tmp_path / "third"}"\n'))
    assert load_settings({}, env).database == tmp_path / "third" / "allranks.duckdb"


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", None), ("None", None), ("90", 90.0), ("0.5", 0.5)],
)
def test_idle_exit_reads_a_time_or_none(env: dict[str, str], text: str, value: float | None) -> None:
    assert load_settings({}, env | {"ALLRANKS_IDLE_EXIT": text}).idle_exit_s == value


def test_an_embedded_collector_ends_when_idle_and_says_why(env: dict[str, str]) -> None:
    settings = load_settings({}, env, embedded=True)
    assert (settings.idle_exit_s, settings.sources["idle_exit_s"]) == (60.0, "default (embedded)")


def test_an_embedded_collector_can_be_told_to_stay(env: dict[str, str]) -> None:
    assert load_settings({"idle_exit_s": "none"}, env, embedded=True).idle_exit_s is None


def test_lists_are_read_from_text_and_from_toml(env: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'allowed_hosts = ["a.example", "b"]\n')
    assert load_settings({}, env, file).allowed_hosts == ("a.example", "b")
    assert load_settings({"allowed_hosts": "c, d,"}, env, file).allowed_hosts == ("c", "d")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("http_port", "65536"),
        ("data_port", "65535"),
        ("data_port", "0"),
        ("http_port", "-1"),
        ("http_port", "http"),
        ("http_port", True),
        ("http_port", 80.5),
        ("threads", "0"),
        ("commit_interval_s", "nan"),
        ("commit_interval_s", "inf"),
        ("commit_interval_s", 0),
        ("insecure", "maybe"),
        ("insecure", 2),
        ("allowed_hosts", 5),
        ("log_level", "loud"),
        ("home", ""),
        ("max_file_mb", "0"),
        ("keep_days", "never"),
        ("keep_days", [1]),
    ],
)
def test_a_value_that_cannot_be_read_names_itself_and_its_source(env: dict[str, str], name: str, raw: object) -> None:
    expected = {row.name: row.kind.expected for row in TABLE}[name]
    with pytest.raises(SettingError) as caught:
        load_settings({name: raw}, env)
    message = str(caught.value)
    assert name in message
    assert repr(raw) in message
    assert expected in message
    assert "flag --" in message
    assert "\n" not in message


def test_an_unknown_key_of_the_file_suggests_the_known_one(env: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "htpp_port = 80\n")
    with pytest.raises(SettingError, match=r"htpp_port.*did you mean http_port\?") as caught:
        load_settings({}, env, file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_toml_is_one_line(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="expected TOML") as caught:
        load_settings({}, env, write(tmp_path / "a.toml", "http_port: 80\n"))
    assert "\n" not in str(caught.value)


def test_a_named_file_must_be_there(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.toml.*env ALLRANKS_CONFIG"):
        load_settings({}, env | {"ALLRANKS_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "node7", ""])
def test_other_addresses_than_loopback_need_insecure(env: dict[str, str], host: str) -> None:
    with pytest.raises(SettingError):
        load_settings({"host": host}, env)


def test_the_refusal_to_listen_outside_says_how_to_allow_it(env: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=r"0\.0\.0\.0.*flag --host.*--insecure"):
        load_settings({"host": "0.0.0.0"}, env)
    assert load_settings({"host": "0.0.0.0", "insecure": True}, env).host == "0.0.0.0"


@pytest.mark.parametrize("port", [5571, 5572])
def test_http_cannot_take_a_data_port(env: dict[str, str], port: int) -> None:
    with pytest.raises(SettingError, match="another port than data"):
        load_settings({"http_port": port}, env)


def test_http_may_take_the_data_port_where_data_has_a_path(env: dict[str, str], tmp_path: Path) -> None:
    settings = load_settings({"http_port": 5571, "ipc": str(tmp_path / "s")}, env)
    assert settings.ipc == str(tmp_path / "s")


def test_described_is_plain_values_with_their_sources(tmp_path: Path) -> None:
    described = Settings(
        home=tmp_path, database=tmp_path / "d", spool=tmp_path / "s", files=tmp_path / "f"
    ).described()
    assert described["home"] == {"value": str(tmp_path), "source": "default"}
    assert described["allowed_hosts"]["value"] == []
    assert set(described) == {row.name for row in TABLE}


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
    ],
)
def test_loopback(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
