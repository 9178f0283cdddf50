"""Which files there are, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from allranks_bus.files.search import Finding, Found, Unfit, expand, folder_of, walk


def _file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _names(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if isinstance(finding, Found)}


def _unfit(findings: list[Finding]) -> list[Unfit]:
    return [finding for finding in findings if isinstance(finding, Unfit)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in ("a.txt", "checkpoints/epoch=1.ckpt", "checkpoints/deep/er/b", ".hidden"):
        _file(folder / name)
    (folder / "empty").mkdir()
    return folder


def test_all_regular_files_are_found_by_their_relative_paths(run: Path) -> None:
    found = list(walk(str(run)))
    assert _names(found) == {"a.txt", "checkpoints/epoch=1.ckpt", "checkpoints/deep/er/b", ".hidden"}
    assert not _unfit(found)


def test_a_finding_tells_path_and_state(run: Path) -> None:
    (found,) = [each for each in walk(str(run)) if isinstance(each, Found) and each.name == "a.txt"]
    status = (run / "a.txt").stat()
    assert found.path == str(run / "a.txt")
    assert found.root == str(run)
    assert found.state == (1, status.st_mtime_ns, status.st_ino)


def test_there_is_nothing_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert list(walk(str(tmp_path / "nothing"))) == []


def test_a_link_to_a_file_inside_is_that_file_under_the_links_name(run: Path) -> None:
    (run / "last.ckpt").symlink_to("checkpoints/epoch=1.ckpt")
    (found,) = [each for each in walk(str(run)) if isinstance(each, Found) and each.name == "last.ckpt"]
    assert found.path == str(run / "checkpoints/epoch=1.ckpt")
    assert found.state.inode == (run / "checkpoints/epoch=1.ckpt").stat().st_ino


def test_a_link_that_leads_out_is_told_and_left_out(run: Path) -> None:
    (run / "passwd").symlink_to("/etc/passwd")
    found = list(walk(str(run)))
    assert "passwd" not in _names(found)
    assert [each.path for each in _unfit(found)] == [str(run / "passwd")]


def test_links_to_folders_fifos_and_broken_links_are_left_out(run: Path) -> None:
    """A folder that is linked to itself would have no end."""
    (run / "self").symlink_to(".")
    (run / "etc").symlink_to("/etc")
    (run / "broken").symlink_to("nowhere")
    (run / "round").symlink_to("round")
    os.mkfifo(run / "fifo")
    found = list(walk(str(run)))
    assert len(_names(found)) == 4
    assert not _unfit(found)


@pytest.mark.parametrize("name", [b"a\nb", b"a\\b", b"a\xff", b"\x1b[2J"])
def test_a_name_that_cannot_be_stored_is_told(run: Path, name: bytes) -> None:
    (run / os.fsdecode(name)).write_bytes(b"x")
    (unfit,) = _unfit(list(walk(str(run))))
    assert unfit.problem.isprintable()


def test_a_folder_may_itself_be_behind_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert len(_names(list(walk(str(tmp_path / "link"))))) == 4


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.txt", {"a.txt"}),
        ("*.txt", {"a.txt"}),
        ("checkpoints/*", {"checkpoints/epoch=1.ckpt"}),
        ("checkpoints/**", {"checkpoints/epoch=1.ckpt", "checkpoints/deep/er/b"}),
        ("**/b", {"checkpoints/deep/er/b"}),
        ("nothing*", set[str]()),
        ("checkpoints", set[str]()),
    ],
)
def test_a_pattern_means_files(run: Path, pattern: str, names: set[str]) -> None:
    assert _names(list(expand(str(run / pattern), str(run)))) == names


def test_a_pattern_does_not_lead_out_either(run: Path, tmp_path: Path) -> None:
    _file(tmp_path / "secret")
    (run / "link").symlink_to("../secret")
    found = list(expand(str(run / "li*"), str(run)))
    assert not _names(found)
    assert len(_unfit(found)) == 1


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [("/a/b/c", "/a/b"), ("/a/b/*.txt", "/a/b"), ("/a/*/c/d", "/a"), ("/a/[b]/c", "/a"), ("/*", "/"), ("/a", "/")],
)
def test_a_pattern_begins_in_the_folder_before_its_first_wildcard(pattern: str, folder: str) -> None:
    assert folder_of(pattern) == folder
