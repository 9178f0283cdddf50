"""The doctor's checks, each on facts that are given to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from allranks_collector import doctor
from allranks_collector.doctor import Finding, FolderFacts, PortFacts, Reached
from allranks_collector.settings import Settings

GOOD = {
    "python": "3.11.7",
    "pyzmq": "27.3.0",
    "libzmq": "4.3.5",
    "duckdb": "2.0.0",
    "allranks": "0.1.0",
    "protocol": "1",
}


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("url", "level"),
    [
        (None, "ok"),
        ("", "ok"),
        ("tcp://h:5571", "ok"),
        ("ipc:///tmp/s", "ok"),
        ("h:5571", "fail"),
        ("tcp://h", "fail"),
    ],
)
def test_url(url: str | None, level: str) -> None:
    assert doctor.check_url(url).level == level


def test_the_url_is_shown_with_its_control_address() -> None:
    assert doctor.check_url("tcp://h:5571").what == "data tcp://h:5571, control tcp://h:5572"


def test_no_collector_is_well() -> None:
    assert levels(doctor.check_collector(None, [])) == ["ok"]


def test_a_collector_that_does_not_answer_on_one_socket_is_broken() -> None:
    findings = doctor.check_collector("pid 1", [Reached("http://h"), Reached("tcp://h:1", "Connection refused")])
    assert levels(findings) == ["ok", "ok", "fail"]
    assert findings[2].what == "tcp://h:1 does not answer: Connection refused"


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (PortFacts("http_port", 5570, taken=False), "ok", "free"),
        (PortFacts("http_port", 5570, taken=True, by_collector=True), "ok", "of this collector"),
        (PortFacts("http_port", 5570, taken=True, holder="process 7 (nc)"), "warn", "process 7 (nc)"),
        (PortFacts("http_port", 5570, taken=True), "warn", "another process"),
        (PortFacts("http_port", 5570, taken=True, may_move=True), "ok", "takes a free one"),
    ],
)
def test_port(facts: PortFacts, level: str, words: str) -> None:
    finding = doctor.check_port(facts)
    assert finding.level == level
    assert words in finding.what
    assert ("ALLRANKS_HTTP_PORT" in finding.what_to_do) == (level == "warn")


def test_versions_that_fit() -> None:
    assert set(levels(doctor.check_versions(GOOD, {"allranks": "0.1.0", "protocol": "1"}))) == {"ok"}


@pytest.mark.parametrize(
    ("changed", "theirs", "name", "level"),
    [
        ({"pyzmq": "24.0.1"}, {}, "pyzmq", "fail"),
        ({"duckdb": None}, {}, "duckdb", "fail"),
        ({"python": "3.9.18"}, {}, "python", "fail"),
        ({}, {"allranks": "0.2.0"}, "allranks", "warn"),
        ({"protocol": "2"}, {"protocol": "1"}, "protocol", "fail"),
        ({"protocol": "1"}, {"protocol": "2"}, "protocol", "warn"),
        ({"pyzmq": "27.0.0b1"}, {}, "pyzmq", "ok"),
    ],
)
def test_versions_that_do_not(changed: dict[str, str | None], theirs: dict[str, str], name: str, level: str) -> None:
    findings = {finding.name: finding for finding in doctor.check_versions(GOOD | changed, theirs)}
    assert findings[name].level == level
    assert {finding.level for other, finding in findings.items() if other != name} == {"ok"}


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/data/spool", "ext4", "ok"),
        ("/data/spool", "overlay", "ok"),
        ("/data/spool", "", "ok"),
        ("/home/u/spool", "nfs4", "fail"),
        ("/home/u/spool", "lustre", "fail"),
        ("/home/u/spool", "cifs", "fail"),
        ("/home/u/spool", "gpfs", "fail"),
        ("/home/u/spool", "fuse.anything", "fail"),
        ("/dev/shm/spool", "tmpfs", "warn"),
        ("/dev/shm/spool", "ext4", "warn"),
        ("/tmp/spool", "tmpfs", "warn"),
    ],
)
def test_the_file_system_of_the_spool(path: str, kind: str, level: str) -> None:
    finding, space = doctor.check_folder(FolderFacts("spool", Path(path), kind, 1 << 40, writable=True))
    assert finding.level == level
    assert ("ALLRANKS_SPOOL" in finding.what_to_do) == (level != "ok")
    assert space.level == "ok"


@pytest.mark.parametrize(("free", "level"), [(1 << 40, "ok"), (500 << 20, "warn"), (1 << 20, "fail"), (0, "fail")])
def test_space(free: int, level: str) -> None:
    _, space = doctor.check_folder(FolderFacts("home", Path("/h"), "ext4", free, writable=True))
    assert (space.name, space.level) == ("home space", level)


def test_a_folder_that_cannot_be_written_is_broken() -> None:
    findings = doctor.check_folder(FolderFacts("home", Path("/h"), "ext4", 1 << 40, writable=False))
    assert {finding.name: finding.level for finding in findings} == {
        "home": "ok",
        "home access": "fail",
        "home space": "ok",
    }


@pytest.mark.parametrize(
    ("kind", "free", "writable", "wanted"),
    [
        ("ext4", 1 << 40, True, ["ok", "ok"]),
        ("nfs4", 1 << 40, True, ["ok", "ok"]),
        ("tmpfs", 1 << 40, True, ["warn", "ok"]),
        ("ext4", 1 << 40, False, ["fail", "ok"]),
        ("ext4", 5 << 30, True, ["ok", "warn"]),
        ("ext4", 256 << 20, True, ["ok", "fail"]),
    ],
)
def test_the_folder_of_files(kind: str, free: int, writable: bool, wanted: list[str]) -> None:
    facts = FolderFacts("files", Path("/data/files"), kind, free, writable)
    findings = doctor.check_files(facts, 3 << 30, 256 << 20)
    assert [finding.level for finding in findings] == wanted
    assert [finding.name for finding in findings] == ["files", "files space"]
    assert all(bool(finding.what_to_do) == (finding.level != "ok") for finding in findings)


@pytest.mark.parametrize(("count", "drained", "level"), [(0, False, "ok"), (2, True, "ok"), (2, False, "warn")])
def test_files_that_nobody_ships(count: int, drained: bool, level: str) -> None:
    assert doctor.check_outboxes(count, drained).level == level


@pytest.mark.parametrize(
    ("soft", "hard", "level"), [(1024, 1 << 20, "ok"), (1024, -1, "ok"), (-1, -1, "ok"), (1024, 1024, "warn")]
)
def test_descriptors(soft: int, hard: int, level: str) -> None:
    assert doctor.check_descriptors(soft, hard).level == level


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "level"),
    [
        (None, 0.0, "ok"),
        (0.4, 0.5, "ok"),
        (-2.4, 0.5, "ok"),
        (2.6, 0.5, "warn"),
        (-5.0, 0.5, "warn"),
        (3600.0, 0.5, "fail"),
        (30.0, 40.0, "ok"),
    ],
)
def test_clock(offset_s: float | None, uncertainty_s: float, level: str) -> None:
    assert doctor.check_clock(offset_s, uncertainty_s).level == level


def test_the_clock_says_which_way() -> None:
    assert "30 s behind ours" in doctor.check_clock(-30.0, 0.0).what
    assert "30 s ahead of ours" in doctor.check_clock(30.0, 0.0).what


@pytest.mark.parametrize(("count", "drained", "level"), [(0, False, "ok"), (2, True, "ok"), (2, False, "warn")])
def test_orphans(count: int, drained: bool, level: str) -> None:
    finding = doctor.check_orphans(count, 1 << 20, drained)
    assert finding.level == level
    assert ("allranks sync" in finding.what_to_do) == (level == "warn")


def test_settings_name_what_was_changed() -> None:
    folder = Path("/h")
    settings = Settings(
        home=folder, database=folder, spool=folder, files=folder, sources={"threads": "env X", "host": "default"}
    )
    assert doctor.check_settings(settings).what == "set: threads"
    assert doctor.check_settings(None, "threads='x' cannot be used").level == "fail"


def test_only_a_failure_fails() -> None:
    assert not doctor.has_failed([Finding("a", "ok", ""), Finding("b", "warn", "")])
    assert doctor.has_failed([Finding("a", "ok", ""), Finding("b", "fail", "")])
