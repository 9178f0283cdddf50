"""`up`, `down`, `status`, `collector`: which process they start, keep and end, with doubles for the processes."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from allranks_bus import processes
from allranks_bus.home import Endpoint, write_endpoint
from allranks_collector import cli
from allranks_collector.cli import process
from allranks_collector.cli.common import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from allranks_collector.settings import Settings

HTTP, URL = "http://127.0.0.1:5570", "tcp://127.0.0.1:5571"


def endpoint_of(pid: int) -> Endpoint:
    return Endpoint(URL, HTTP, pid, processes.start_time(pid) or 0, "0" * 32, "0.1.0", 1e9)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.setenv("ALLRANKS_SPOOL", str(tmp_path / "spool"))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    return tmp_path


@pytest.fixture
def sleeper(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a collector, with its endpoint in the home."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as running:
        write_endpoint(home, endpoint_of(running.pid))
        yield running
        running.kill()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]) -> list[bool]:
    """Whether each collector that was started is to be kept."""
    kept: list[bool] = []

    def ensure(_env: Mapping[str, str], *, timeout_s: float, keep: bool) -> Endpoint:
        assert timeout_s > 0
        kept.append(keep)
        return endpoint_of(sleeper.pid)

    monkeypatch.setattr(process, "ensure_collector", ensure)
    return kept


def tell(monkeypatch: pytest.MonkeyPatch, status: dict[str, Any]) -> None:
    class Told:
        def __init__(self, _url: str) -> None:
            pass

        def status(self) -> dict[str, Any]:
            return status

    monkeypatch.setattr(process, "RemoteReader", Told)


def test_up_starts_a_collector_to_keep(home: Path, started: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    (home / "collector.json").unlink()
    assert cli.main(["up"]) == 0
    assert started == [True]
    assert HTTP in capsys.readouterr().out


@pytest.mark.usefixtures("sleeper")
def test_up_leaves_a_kept_collector_alone(started: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, {"settings": {"idle_exit_s": {"value": None, "source": "default"}}})
    assert cli.main(["up", "--json"]) == 0
    assert started == []


def test_up_replaces_one_that_would_end_when_idle(
    sleeper: subprocess.Popen[bytes], started: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(monkeypatch, {"settings": {"idle_exit_s": {"value": 60.0, "source": "default (embedded)"}}})
    assert cli.main(["up"]) == 0
    assert sleeper.wait(60) == -15
    assert started == [True]


def test_down_ends_it(sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down"]) == 0
    assert sleeper.wait(60) == -15
    assert f"pid {sleeper.pid}" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_down_without_a_collector_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": False}


def test_a_collector_that_does_not_end_is_said() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        with pytest.raises(CommandError, match=f"kill -9 {deaf.pid}"):
            process.stop(endpoint_of(deaf.pid), timeout_s=0.2)
        deaf.kill()


def test_another_process_with_its_pid_is_not_touched(sleeper: subprocess.Popen[bytes]) -> None:
    other = Endpoint(URL, HTTP, sleeper.pid, 1, "0" * 32, "0.1.0", 1e9)
    process.stop(other)
    assert sleeper.poll() is None


@pytest.mark.usefixtures("home")
def test_status_without_a_collector(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"running": False, "orphaned_spools": {"count": 0, "bytes": 0}}
    assert cli.main(["status"]) == 0
    assert "none runs" in capsys.readouterr().out


@pytest.mark.usefixtures("sleeper")
def test_status_of_a_collector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tell(monkeypatch, {"version": "9.9", "uptime": 120.0, "database": {"path": "/d", "bytes": 2048}})
    assert cli.main(["status"]) == 0
    shown = capsys.readouterr().out
    assert "9.9" in shown
    assert "/d (2.0 KiB)" in shown


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, bool]]:
    """What the service was run with."""
    runs: list[tuple[Settings, bool]] = []

    def run(settings: Settings, *, embedded: bool) -> int:
        runs.append((settings, embedded))
        return 3

    service = types.ModuleType("allranks_collector.service")
    service.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "allranks_collector.service", service)
    monkeypatch.setattr("allranks_collector.service", service, raising=False)
    return runs


def test_the_collector_runs_with_its_flags(home: Path, served: list[tuple[Settings, bool]]) -> None:
    assert cli.main(["collector", "--http-port", "0", "--insecure", "--host", "0.0.0.0", "--no-drain-orphans"]) == 3
    ((settings, embedded),) = served
    assert (settings.http_port, settings.host, settings.drain_orphans, embedded) == (0, "0.0.0.0", False, False)
    assert settings.sources["http_port"] == "flag --http-port"
    assert settings.home == home


@pytest.mark.parametrize(
    ("flags", "idle_exit_s"), [([], None), (["--embedded"], 60.0), (["--embedded", "--keep"], None)]
)
@pytest.mark.usefixtures("home")
def test_only_an_embedded_collector_ends_when_idle(
    served: list[tuple[Settings, bool]], flags: list[str], idle_exit_s: float | None
) -> None:
    assert cli.main(["collector", *flags]) == 3
    ((settings, embedded),) = served
    assert (settings.idle_exit_s, embedded) == (idle_exit_s, "--embedded" in flags)


@pytest.mark.usefixtures("home")
def test_the_settings_file_can_be_named(served: list[tuple[Settings, bool]], tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("threads = 5\n")
    assert cli.main(["collector", "--config", str(file)]) == 3
    assert served[0][0].threads == 5


@pytest.mark.usefixtures("home")
def test_a_bad_setting_is_one_line(served: list[tuple[Settings, bool]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collector", "--threads", "many"]) == 1
    assert not served
    assert capsys.readouterr().err.count("\n") == 1
