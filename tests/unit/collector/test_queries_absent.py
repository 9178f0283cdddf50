"""Where no collector runs: a rank whose process is gone is not called running for ever."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from allranks_bus import processes
from allranks_collector import queries
from allranks_collector.queries import find_run
from allranks_collector.queries.absent import tell_the_gone
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    from allranks_collector.store import Store

_ME = processes.current()
_MINE = {"pid": _ME.pid, "pid_start": _ME.start, "boot_id": _ME.boot_id, "pid_ns": _ME.pid_ns}


@pytest.mark.parametrize(
    ("identity", "host", "state"),
    [
        (_MINE, "a", "running"),
        ({**_MINE, "pid_start": 1}, "a", "dead"),
        ({**_MINE, "boot_id": "another"}, os.uname().nodename, "dead"),
        ({**_MINE, "boot_id": "another"}, "another", "running"),
        ({**_MINE, "pid_ns": 1, "pid_start": 1}, os.uname().nodename, "running"),
        ({}, os.uname().nodename, "running"),
    ],
    ids=["lives", "gone", "host was started again", "another host", "another container", "says nothing"],
)
def test_who_is_surely_gone_is_dead_for_who_reads_and_in_no_file(
    build: DatabaseBuilder,
    store: Store,
    identity: dict[str, Any],
    host: str,
    state: str,
) -> None:
    run = build.run("run-1")
    build.state(build.writer(run, 0, world_size=2, host=host, last_s=7.0), "finished", {"exit_code": 0}, since_s=7.0)
    build.writer(run, 1, world_size=2, host=host, last_s=8.0)
    with store.transaction() as connection:
        connection.execute("UPDATE writers SET identity = ?", [json.dumps(identity)])
    with store.cursor() as cursor:
        tell_the_gone(cursor)
        found = find_run(cursor, "run-1")
        assert [rank["state"] for rank in queries.list_ranks(cursor, found)] == ["finished", state]
        assert queries.state_of(cursor, found) == state
        if state == "dead":
            assert queries.list_ranks(cursor, found)[1]["ended_at"] == T0_NS / 1e9 + 8
    with store.cursor() as cursor:
        assert queries.state_of(cursor, find_run(cursor, "run-1")) == "running"
