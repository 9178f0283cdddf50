"""What the doctor finds on this machine: with real sockets, folders and processes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
from typing import TYPE_CHECKING

import pytest
from tests.support.outboxes import make_box

from allranks_bus import processes
from allranks_bus.home import Endpoint, write_endpoint
from allranks_collector import cli, doctor_facts
from allranks_collector.doctor_facts import Told, examine, folder_facts, held_bytes, port_facts
from allranks_collector.files import default_reserve_bytes
from allranks_collector.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allranks_collector.doctor import Finding


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ALLRANKS_HOME": str(tmp_path / "home"), "ALLRANKS_SPOOL": str(tmp_path / "spool")}


@pytest.fixture
def listener() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def levels(findings: list[Finding], name: str) -> list[str]:
    return [finding.level for finding in findings if finding.name == name]


def endpoint_here(data_port: int, http_port: int) -> Endpoint:
    """The endpoint of a collector that is this very process."""
    me = processes.current()
    http = f"http://127.0.0.1:{http_port}"
    return Endpoint(f"tcp://127.0.0.1:{data_port}", http, me.pid, me.start, "0" * 32, "0.1.0", 1.0)


def test_a_host_without_a_collector_is_well(env: dict[str, str]) -> None:
    findings, settings = examine(env, Told())
    assert {finding.name for finding in findings if finding.level == "fail"} <= {"home space", "spool space"}
    assert settings is not None
    assert levels(findings, "collector") == ["ok"]
    assert levels(findings, "orphaned spools") == ["ok"]


def test_settings_that_cannot_be_read_are_a_finding(env: dict[str, str]) -> None:
    findings, settings = examine(env | {"ALLRANKS_THREADS": "many"}, Told())
    assert settings is None
    assert levels(findings, "settings") == ["fail"]


def test_a_collector_whose_sockets_do_not_answer_is_found(env: dict[str, str], tmp_path: Path, listener: int) -> None:
    (tmp_path / "home").mkdir()
    http_port = closed_port()
    write_endpoint(tmp_path / "home", endpoint_here(listener, http_port))
    findings, _ = examine(env, Told(f"http://127.0.0.1:{http_port}"))
    told = {f.what.partition(" ")[0]: f.level for f in findings if f.name == "collector"}
    assert told[f"http://127.0.0.1:{http_port}"] == "fail"
    assert told[f"tcp://127.0.0.1:{listener}"] == "ok"


def test_the_data_address_of_the_environment_is_tried(env: dict[str, str]) -> None:
    port = closed_port()
    findings, _ = examine(env | {"ALLRANKS_URL": f"tcp://127.0.0.1:{port}"}, Told())
    assert levels(findings, "collector")[0] == "fail"
    assert "Connection refused" in next(f.what for f in findings if f.name == "collector")


def test_a_path_of_data_is_tried(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "data"
    with contextlib.ExitStack() as opened:
        for name in (path, tmp_path / "data.control"):
            server = opened.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(name))
            server.listen()
        findings, _ = examine(env | {"ALLRANKS_URL": f"ipc://{path}"}, Told())
    assert levels(findings, "collector") == ["ok", "ok"]


def test_a_port_tells_who_has_it(tmp_path: Path, listener: int) -> None:
    settings = Settings(
        home=tmp_path, database=tmp_path, spool=tmp_path, files=tmp_path, http_port=listener, ipc="/x"
    )
    (facts,) = port_facts(settings, None)
    assert (facts.taken, facts.by_collector) == (True, False)
    assert facts.holder.startswith(f"process {os.getpid()} (")
    (facts,) = port_facts(settings, endpoint_here(1, listener))
    assert facts.by_collector


def test_a_free_port_is_free(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, database=tmp_path, spool=tmp_path, files=tmp_path, http_port=closed_port(), ipc="/x"
    )
    assert [facts.taken for facts in port_facts(settings, None)] == [False]


def test_only_a_default_port_may_move(env: dict[str, str]) -> None:
    settings = load_settings({"http_port": str(closed_port())}, env)
    assert [facts.may_move for facts in port_facts(settings, None)] == [False, True, True]


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    facts = folder_facts("spool", tmp_path / "a" / "b")
    assert facts.writable
    assert facts.free_bytes > 0
    assert facts.file_system == folder_facts("spool", tmp_path).file_system != ""


def test_the_clock_is_compared_with_what_the_collector_told() -> None:
    assert Told("u", {"time": 110.0}, took_s=2.0, at=100.0).clock_offset_s == 10.0
    assert Told("u", {}).clock_offset_s is None


def test_an_orphan_waits(env: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "spool" / f"{1:032x}"
    directory.mkdir(parents=True)
    (directory / f"{0:020}.seg").write_bytes(b"x")
    findings, _ = examine(env, Told())
    assert levels(findings, "orphaned spools") == ["warn"]


def test_files_wait_whose_training_is_gone(env: dict[str, str], tmp_path: Path) -> None:
    box = make_box(tmp_path, "offline")
    box.make()
    findings, _ = examine(env, Told())
    assert levels(findings, "orphaned files") == ["warn"]
    with box.user():
        findings, _ = examine(env, Told())
    assert levels(findings, "orphaned files") == ["ok"]


def test_what_files_leave_free_follows_from_the_disk_or_is_set(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database=tmp_path, spool=tmp_path, files=tmp_path / "none" / "files")
    disk = shutil.disk_usage(tmp_path).total
    assert doctor_facts.reserve_bytes(settings) == default_reserve_bytes(disk)
    assert doctor_facts.reserve_bytes(dataclasses.replace(settings, files_reserve_mb=3)) == 3 << 20


def test_what_is_kept_of_files_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(bytes(1000))
    (tmp_path / "d").write_bytes(bytes(24))
    assert held_bytes(tmp_path) == 1024
    assert held_bytes(tmp_path / "none") == 0


def test_versions_are_those_that_run() -> None:
    versions = doctor_facts.our_versions()
    assert all(versions.values())
    assert set(versions) == {"allranks", "protocol", "python", "pyzmq", "libzmq", "duckdb"}


def test_the_command_ends_with_1_where_something_is_broken(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    monkeypatch.setenv("ALLRANKS_URL", "no-address")
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "correct ALLRANKS_URL, or unset it" in shown
    assert str(env["ALLRANKS_HOME"]) in shown
    assert cli.main(["doctor", "--json"]) == 1
