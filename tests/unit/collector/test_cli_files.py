"""`files` and `download`: what they list, which files are meant, and that none of them leaves its folder."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.serving import serving

from allranks_collector import cli
from allranks_collector.api import ApiContext, create_app
from allranks_collector.cli import files as module
from allranks_collector.cli.common import CommandError, UsageError
from allranks_collector.files import FileStore
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allranks_collector.cli.reader import Reader

FILES = (
    ("ckpt/last.ckpt", b"weights", "host-a"),
    ("log.txt", b"of a", "host-a"),
    ("log.txt", b"of b", "host-b"),
    ("same.txt", b"same", "host-a"),
    ("same.txt", b"same", "host-b"),
)


def _fill(settings: Settings, files: tuple[tuple[str, bytes, str], ...] = FILES) -> None:
    contents = FileStore(settings.files)
    with Store.open(settings.database) as store:
        build = DatabaseBuilder(store)
        run = build.run("run-one", name="first")
        build.run("empty")
        for name, body, host in files:
            digest = hashlib.sha256(body).hexdigest()
            partial = contents.open(bytes(16), len(body))
            partial.write(body)
            partial.seal()
            contents.place({bytes(16): digest})
            build.file(run, name, digest, len(body), host=host)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    return Settings(home, home / "allranks.duckdb", home / "spool", home / "files")


@pytest.fixture(params=["a collector", "the files themselves"])
def source(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StillLive]:
    """Files of the run `run-one`, over HTTP and without a collector."""
    _fill(settings)
    monkeypatch.setenv("ALLRANKS_HOME", str(settings.home))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    live = StillLive()
    if request.param == "the files themselves":
        yield live
        return
    with Store.open(settings.database) as store, serving(create_app(ApiContext(store, live, settings))) as url:
        monkeypatch.setenv("ALLRANKS_HTTP", url)
        yield live


def _there(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("source")
def test_files_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["files", "first", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(file["name"], file["host"], file["size"]) for file in found["files"]] == [
        (name, host, len(body)) for name, body, host in FILES
    ]
    assert (found["arriving"], found["total_bytes"]) == ([], 23)
    assert cli.main(["files", "run-one"]) == 0
    shown = capsys.readouterr().out
    assert "ckpt/last.ckpt" in shown
    assert "5 files, 23 B." in shown
    assert cli.main(["files", "empty"]) == 0
    assert capsys.readouterr().out == "No files.\n"


@pytest.mark.parametrize("source", ["a collector"], indirect=True)
def test_what_is_arriving_is_told(source: StillLive, capsys: pytest.CaptureFixture[str]) -> None:
    source.files["empty"] = [{"name": "big.ckpt", "host": "host-a", "size": 4096, "offset": 1024}]
    assert cli.main(["files", "empty"]) == 0
    shown = capsys.readouterr().out
    for text in ("No files.", "big.ckpt", "1.0 KiB", "4.0 KiB"):
        assert text in shown


@pytest.mark.usefixtures("source")
def test_files_are_downloaded_under_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "to"
    assert cli.main(["download", "run-one", "*.ckpt", "same.txt", "--to", str(folder)]) == 0
    assert _there(folder) == {"ckpt/last.ckpt": b"weights", "same.txt": b"same"}
    assert f"2 files, 11 B, in {folder}." in capsys.readouterr().out


@pytest.mark.usefixtures("source")
def test_all_files_of_a_host_are_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "to"
    assert cli.main(["download", "run-one", "--host", "host-b", "--to", str(folder), "--json"]) == 0
    assert _there(folder) == {"log.txt": b"of b", "same.txt": b"same"}
    assert [file["path"] for file in json.loads(capsys.readouterr().out)] == [
        str(folder / "log.txt"),
        str(folder / "same.txt"),
    ]


@pytest.mark.usefixtures("source")
def test_what_is_there_already_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["download", "run-one", "same.txt", "--to", str(tmp_path / "to")]
    assert cli.main(command) == 0
    for reader in ("remote_reader.RemoteReader", "local_reader.LocalReader"):
        monkeypatch.setattr(f"allranks_collector.cli.{reader}.fetch", None)
    assert cli.main(command) == 0


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["run-one"], 2, "several hosts have a file 'log.txt': choose one with --host (host-a, host-b)"),
        (["run-one", "none"], 1, "the run has no file 'none'"),
        (["run-one", "--host", "host-c"], 1, "the run has no files of host host-c"),
        (["empty"], 1, "the run has no files"),
        (["nobody"], 1, "no run"),
        (["run-one", "same.txt", "--to", "/dev/null/x"], 1, "cannot write"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["download", *arguments]) == status
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("source")
def test_a_content_that_is_damaged_does_not_appear(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = FileStore(settings.files).blob(hashlib.sha256(b"weights").hexdigest())
    blob.write_bytes(b"weighty")
    folder = tmp_path / "to"
    assert cli.main(["download", "run-one", "*.ckpt", "--to", str(folder)]) == 1
    assert "not the file that is stored" in capsys.readouterr().err
    assert _there(folder) == {}


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "", "a\nb"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError):
        module.place(tmp_path, name)


def test_no_link_leads_out_of_the_folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(settings)
    monkeypatch.setenv("ALLRANKS_HOME", str(settings.home))
    folder, outside = tmp_path / "to", tmp_path / "outside"
    for made in (folder, outside):
        made.mkdir()
    (folder / "ckpt").symlink_to(outside)
    assert cli.main(["download", "run-one", "*.ckpt", "--to", str(folder)]) == 1
    assert _there(outside) == {}
    # A link in the place of the file itself is replaced, and not written through.
    (folder / "same.txt").symlink_to(outside / "same.txt")
    assert cli.main(["download", "run-one", "same.txt", "--to", str(folder)]) == 0
    assert _there(outside) == {}
    assert (folder / "same.txt").read_bytes() == b"same"


def test_a_run_that_is_removed_takes_its_contents_along(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(settings)
    monkeypatch.setenv("ALLRANKS_HOME", str(settings.home))
    assert cli.main(["rm", "run-one", "--yes"]) == 0
    assert _there(settings.files) == {}


def test_a_pattern_names_what_it_fits() -> None:
    listed = [{"name": name, "host": "h", "digest": name} for name in ("a", "b.ckpt", "c/d.ckpt", "[x]")]

    def chosen(*names: str) -> list[str]:
        return [file["name"] for file in module.choose(listed, names, None)]

    assert chosen() == ["a", "b.ckpt", "c/d.ckpt", "[x]"]
    assert chosen("*.ckpt") == ["b.ckpt", "c/d.ckpt"]
    assert chosen("c/*", "a") == ["a", "c/d.ckpt"]
    assert chosen("[x]") == ["[x]"]
    with pytest.raises(CommandError):
        chosen("d.ckpt")


def test_files_of_one_name_must_be_one() -> None:
    listed = [{"name": "a", "host": host, "digest": host} for host in ("h1", "h2")]
    with pytest.raises(UsageError):
        module.choose(listed, [], None)
    assert module.choose(listed, [], "h2") == [listed[1]]


class _Arriving:
    """A reader of a run whose file is here after three looks."""

    def __init__(self) -> None:
        self.looks = 0

    def files(self, _run: str) -> dict[str, Any]:
        self.looks += 1
        arriving = [{"name": "[bold]a", "host": "h", "size": 30, "offset": 10 * self.looks}]
        return {"files": [], "arriving": arriving if self.looks < 3 else [], "total_bytes": 0}


def test_what_arrives_is_watched_until_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    reader: Any = _Arriving()
    typed: Reader = reader
    assert module.watch(typed, "r", reader.files("r"))["arriving"] == []
    assert reader.looks == 3
