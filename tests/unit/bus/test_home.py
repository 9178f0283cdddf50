"""Where things lie: tables of environments, the endpoint file, and file systems that are not to be trusted."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from allranks_bus import home, processes
from allranks_bus.home import (
    ENDPOINT_FILE,
    Endpoint,
    file_system,
    home_dir,
    is_network,
    read_endpoint,
    remove_endpoint,
    run_dir,
    spool_roots,
    write_endpoint,
)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"ALLRANKS_HOME": "/a/b", "HOME": "/h", "XDG_DATA_HOME": "/x"}, "/a/b"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/allranks"),
        ({"HOME": "/h"}, "/h/.local/share/allranks"),
        ({"HOME": "/h", "XDG_DATA_HOME": "", "ALLRANKS_HOME": ""}, "/h/.local/share/allranks"),
        ({"ALLRANKS_HOME": "~no-such-user-at-all/x", "HOME": "/h"}, f"{Path.cwd()}/~no-such-user-at-all/x"),
        ({"ALLRANKS_HOME": "relative"}, f"{Path.cwd()}/relative"),
    ],
)
def test_the_home_is_found(env: dict[str, str], expected: str) -> None:
    """The user's word first, then the data directory."""
    assert str(home_dir(env)) == expected


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", "/h")
    assert home_dir({"ALLRANKS_HOME": "~/x"}) == Path("/h/x")


def test_a_user_without_a_home_gets_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user often has neither HOME nor an entry in passwd."""

    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/t")
    assert home_dir({}) == Path(f"/t/allranks-{os.getuid()}")


def test_the_spool_is_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nowhere else: the user has chosen."""
    monkeypatch.setattr(home, "is_network", bool)
    assert list(spool_roots({"ALLRANKS_SPOOL": "/s", "ALLRANKS_HOME": "/a"})) == [Path("/s")]


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ((), ["/a/spool", "/var/tmp/U/spool", "/t/U/spool"]),
        (("/a",), ["/var/tmp/U/spool", "/t/U/spool"]),
        (("/a", "/var/tmp"), ["/t/U/spool"]),
        (("/a", "/var/tmp", "/t"), []),
    ],
)
def test_network_file_systems_are_avoided(
    monkeypatch: pytest.MonkeyPatch, networks: tuple[str, ...], expected: list[str]
) -> None:
    """A write there waits for somebody else."""
    monkeypatch.setattr(home, "is_network", tuple(map(Path, networks)).__contains__)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/t")
    found = [str(path).replace(f"allranks-{os.getuid()}", "U") for path in spool_roots({"ALLRANKS_HOME": "/a"})]
    assert found == expected


def test_shared_memory_is_no_place_for_a_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    """DataLoader workers live there, and fill it."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/dev/shm/tmp")
    assert not any(path.is_relative_to("/dev/shm") for path in spool_roots({"ALLRANKS_HOME": "/a"}))


def test_a_runs_directory_is_the_same_for_all_ranks() -> None:
    """By the environment alone."""
    assert run_dir("r", {"ALLRANKS_HOME": "/a"}) == Path("/a/runs/r")
    assert run_dir("r", {"ALLRANKS_HOME": "/a", "ALLRANKS_DIR": "/d"}) == Path("/d/r")


# -- the endpoint -------------------------------------------------------------------------------------------------


def _endpoint(pid: int | None = None, start: int | None = None) -> Endpoint:
    me = processes.current()
    return Endpoint(
        url="tcp://127.0.0.1:5571",
        http="http://127.0.0.1:5570",
        pid=me.pid if pid is None else pid,
        pid_start=me.start if start is None else start,
        instance="00" * 16,
        version="1",
        started=1.5,
    )


def test_an_endpoint_comes_back(tmp_path: Path) -> None:
    """And only its owner may read it."""
    write_endpoint(tmp_path, _endpoint())
    assert read_endpoint(tmp_path) == _endpoint()
    assert (tmp_path / ENDPOINT_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [ENDPOINT_FILE]


def test_the_endpoint_of_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    """Also where its pid belongs to another process by now."""
    write_endpoint(tmp_path, _endpoint(start=processes.current().start + 1))
    assert read_endpoint(tmp_path) is None


def test_the_endpoint_of_a_newer_collector_is_understood(tmp_path: Path) -> None:
    """What it tells beyond is passed over."""
    (tmp_path / ENDPOINT_FILE).write_text(json.dumps({**asdict(_endpoint()), "newer": 1}))
    assert read_endpoint(tmp_path) == _endpoint()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "1", "{}", '{"pid": 1}', json.dumps({**asdict(_endpoint()), "pid": "x"}),
     json.dumps({**asdict(_endpoint()), "pid": None}), "\udcff"],
)  # fmt: skip
def test_a_broken_endpoint_file_is_none(tmp_path: Path, content: str) -> None:
    """And can be removed by nobody but its owner."""
    path = tmp_path / ENDPOINT_FILE
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_endpoint(tmp_path) is None
    remove_endpoint(tmp_path, os.getpid())
    assert path.exists() == (json.dumps(os.getpid()) not in content)


def test_no_endpoint_file_is_none(tmp_path: Path) -> None:
    """Nor is its removal an error."""
    assert read_endpoint(tmp_path) is None
    remove_endpoint(tmp_path, os.getpid())


def test_a_successors_endpoint_is_left_alone(tmp_path: Path) -> None:
    """A collector takes back its own only."""
    write_endpoint(tmp_path, _endpoint())
    remove_endpoint(tmp_path, os.getpid() + 1)
    assert read_endpoint(tmp_path) is not None
    remove_endpoint(tmp_path, os.getpid())
    assert read_endpoint(tmp_path) is None


def test_a_reader_sees_the_old_endpoint_or_the_new(tmp_path: Path) -> None:
    """Never half of one."""
    write_endpoint(tmp_path, _endpoint())
    ends = threading.Event()

    def rewrite() -> None:
        while not ends.is_set():
            write_endpoint(tmp_path, _endpoint())

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(read_endpoint(tmp_path) == _endpoint() for _ in range(1000))
    finally:
        ends.set()
        writer.join()


# -- file systems -------------------------------------------------------------------------------------------------

_MOUNTINFO = (
    rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /proc rw - proc proc rw
31 22 0:40 / /home rw - autofs auto.home rw
32 31 0:41 / /home rw,relatime shared:9 master:1 - nfs4 server:/home rw
33 22 0:42 / /home/local rw - xfs /dev/sdb rw
34 22 0:43 / /mnt/with\040blank rw - cifs //server/share rw
35 22 0:44 / /mnt/donn"""
    + "ées".encode()
    + rb""" rw - fuse.sshfs x rw
36 22 0:45 / /mnt/back\134slash rw - lustre x rw
37 22 0:46 / /mnt/lat"""
    + b"\xe9"
    + rb"""n rw - ceph x rw
38 22 0:47 / /scratch rw - beegfs x rw
39 38 0:48 / /scratch rw - tmpfs x rw
"""
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"), ("/somewhere/else", "ext4"), ("/homes", "ext4"),
        ("/home", "nfs4"), ("/home/me/deep/down", "nfs4"), ("/home/local/me", "xfs"), ("/home/localhost", "nfs4"),
        ("/mnt/with blank/x", "cifs"), ("/mnt/données/x", "fuse.sshfs"), ("/mnt/back\\slash", "lustre"),
        ("/mnt/lat\udce9n/x", "ceph"), ("/scratch/x", "tmpfs"),
    ],
)  # fmt: skip
def test_the_innermost_and_latest_mount_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    """Names may hold blanks, and bytes that are no text."""
    (tmp_path / "mountinfo").write_bytes(_MOUNTINFO)
    monkeypatch.setattr(home, "_MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(os.path, "realpath", str)
    assert file_system(Path(path)) == kind
    assert is_network(Path(path)) == (kind not in ("ext4", "xfs", "tmpfs"))


def test_an_unknown_file_system_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, nothing is avoided."""
    monkeypatch.setattr(home, "_MOUNTS", tmp_path / "nowhere")
    assert file_system(tmp_path) == ""
    assert not is_network(tmp_path)


def test_links_are_followed_to_their_file_system(tmp_path: Path) -> None:
    """On this very machine."""
    (tmp_path / "link").symlink_to("/proc")
    assert file_system(tmp_path / "link" / "not" / "there") == "proc"
    assert file_system(tmp_path) not in ("", "proc")
