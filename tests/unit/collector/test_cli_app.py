"""The command line as a whole: its help, its errors, and the streams that it may meet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from allranks_bus.http_client import Refused
from allranks_collector import cli
from allranks_collector.cli import app, data
from allranks_collector.cli.common import CommandError
from allranks_collector.queries.select import BadQuery
from allranks_collector.settings import TABLE

if TYPE_CHECKING:
    from pathlib import Path

    from allranks_bus.errors import AllranksError

RUNS: list[dict[str, Any]] = [
    {
        "id": "aaa",
        "name": "one",
        "project": "p",
        "state": "running",
        "created_at": 1e9,
        "ranks_seen": 1,
        "world_size": 1,
    },
    {"id": "bbb", "name": "two", "project": "p", "state": "finished", "created_at": 1e9, "ended_at": 1e9 + 60},
    {"id": "ccc", "name": "new", "project": "p", "state": "dead", "created_at": 1e9, "ended_at": 4e9},
]


class Shelf:
    """A reader of the runs above."""

    def __init__(self) -> None:
        self.removed: list[tuple[str, bool]] = []

    def runs(self, *, limit: int = 100, **_filters: object) -> list[dict[str, Any]]:
        return RUNS[:limit]

    def run(self, reference: str) -> dict[str, Any]:
        found = [run for run in RUNS if reference in (run["id"], run["name"])]
        if not found:
            raise CommandError(f"no run {reference}")
        return found[0] | {"attempts": [{"attempt": number} for number in (1, 2, 3)]}

    def ranks(self, reference: str, attempt: int | None = None) -> list[dict[str, Any]]:
        self.run(reference)
        return [{"rank": 0, "state": "running", "attempt": attempt or 1}]

    def export(self, reference: str, what: str, format_: str, path: Path) -> None:
        self.run(reference)
        path.write_text(f"{what} {format_}\n")

    def remove(self, reference: str, *, force: bool = False) -> None:
        self.removed.append((reference, force))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()

    def open_reader(_http: str | None, _env: object) -> Shelf:
        return shelf

    monkeypatch.setattr(data, "open_reader", open_reader)
    return shelf


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name, _ in app.COMMANDS)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "Usage: allranks" in capsys.readouterr().out


def test_the_collector_has_a_flag_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collector", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(row.flag in shown for row in TABLE)
    assert "--embedded" not in shown


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["runs", "--nothing"], ["ranks"], ["export", "aaa", "all"], ["runs", "--limit", "x"], ["rm"]],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert not shelf.removed
    printed = capsys.readouterr()
    assert printed.err.startswith("allranks: ")
    assert printed.err.count("\n") == 1


@pytest.mark.usefixtures("shelf")
def test_an_error_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ranks", "nobody"]) == 1
    assert capsys.readouterr().err == "allranks: no run nobody\n"


@pytest.mark.usefixtures("shelf")
def test_runs_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs"]) == 0
    assert "aaa" in capsys.readouterr().out
    assert cli.main(["runs", "--json", "-n", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == RUNS[:2]


@pytest.mark.usefixtures("shelf")
def test_ranks_of_an_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ranks", "one", "--attempt", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["attempt"] == 3


@pytest.mark.usefixtures("shelf")
def test_an_attempt_that_never_was_is_wrong_usage_and_not_an_empty_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ranks", "one", "--attempt", "4"]) == 2
    assert capsys.readouterr().err == (
        "allranks: --attempt 4 cannot be used: expected one of 1, 2, 3: the run had no other\n"
    )


@pytest.mark.usefixtures("shelf")
def test_a_state_that_no_run_can_have_is_told_beside_those_that_it_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "--state", "done"]) == 2
    told = capsys.readouterr().err
    assert "'done'" in told
    assert all(state in told for state in ("running", "finished", "failed", "killed", "preempted"))
    assert cli.main(["runs", "--state", "killed"]) == 0


@pytest.mark.parametrize(("words", "command"), [(["logs", "--no"], "allranks logs"), (["no"], "allranks")])
def test_wrong_usage_names_the_help_of_its_command(
    words: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert f"(see {command} --help)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(Refused(400, "x=1"), 2), (Refused(409, "no"), 1), (BadQuery("x", 1, "2"), 2)]
)
def test_what_the_collector_or_a_query_cannot_make_sense_of_is_wrong_usage(
    error: AllranksError, status: int, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_asked: object) -> None:
        raise error

    monkeypatch.setattr(shelf, "ranks", refuse)
    assert cli.main(["ranks", "one"]) == status


@pytest.mark.usefixtures("shelf")
def test_export_to_stdout_and_to_a_file(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["export", "aaa", "metrics"]) == 0
    assert capfdbinary.readouterr().out == b"metrics jsonl\n"
    target = tmp_path / "out.csv"
    assert cli.main(["export", "aaa", "system", "-f", "csv", "-o", str(target)]) == 0
    assert target.read_bytes() == b"system csv\n"


@pytest.mark.usefixtures("shelf")
def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    assert cli.main(["export", "nobody", "metrics", "-o", str(tmp_path / "out")]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("shelf")
def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "aaa", "metrics", "-o", str(tmp_path / "no" / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_removing_needs_to_be_confirmed(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rm", "aaa"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not shelf.removed
    assert cli.main(["rm", "aaa", "one", "--yes"]) == 0
    assert shelf.removed == [("aaa", False)]


def test_old_runs_are_removed_but_never_running_ones(shelf: Shelf) -> None:
    assert cli.main(["rm", "--older-than", "30d", "--yes"]) == 0
    assert shelf.removed == [("bbb", False)]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("12h", 43_200), ("1.5d", 129_600), ("2w", 1_209_600)]
)
def test_spans(text: str, seconds: float) -> None:
    assert data.span_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y"])
def test_other_spans_are_refused(text: str) -> None:
    with pytest.raises(CommandError, match="expected a number with"):
        data.span_s(text)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "NEEDS", ("no_such_package_a", "json", "no_such_package_b"))
    assert cli.main(["runs"]) == 1
    assert capsys.readouterr().err == (
        'allranks: the command line needs no_such_package_a, no_such_package_b: pip install "allranks[collector]"\n'
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from allranks_collector.cli import main; sys.exit(main(['collector', '--help']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, env={**os.environ, "HOME": str(tmp_path)}
    )
    os.close(write)
    assert done.stderr == b""


def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    code = "import sys; from allranks_collector.cli import main; sys.exit(main(['collector', '--help']))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    assert (done.returncode, done.stderr) == (1, b"allranks: cannot write: No space left on device\n")


@pytest.mark.usefixtures("shelf")
def test_no_colour_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs"]) == 0
    assert "\x1b" not in capsys.readouterr().out
