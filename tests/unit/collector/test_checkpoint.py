"""The WAL becomes part of the database file while the collector goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from allranks_collector import store as stores
from allranks_collector.store import Store


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "db.duckdb.wal"


def size(path: Path) -> int:
    """In bytes; a checkpoint may remove the WAL."""
    return path.stat().st_size if path.exists() else 0


def commit(store: Store, rounds: int) -> None:
    """As the ingest does: points appended, and a position moved, in one transaction."""
    with store.transaction() as connection:
        connection.execute("INSERT INTO positions VALUES (1, 0, NULL, 0, 0)")
    for _ in range(rounds):
        with store.transaction() as connection:
            connection.execute("INSERT INTO points SELECT 1, i, i, i FROM range(20_000) numbers (i)")
            connection.execute("UPDATE positions SET next_seq = next_seq + 1")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_long_wal_is_checkpointed_while_commits_go_on(
    tmp_path: Path, wal: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Also after a restart, where what the start has read must not hold an old view of the tables open."""
    monkeypatch.setattr(stores, "CHECKPOINT_THRESHOLD_MB", 1)
    if not is_new:
        Store.open(tmp_path / "db.duckdb").close()
    with Store.open(tmp_path / "db.duckdb") as store:
        commit(store, 20)
        assert size(wal) < 3 * 2**20
        assert size(tmp_path / "db.duckdb") > 2**18


def test_a_checkpoint_by_hand_goes_through_after_an_update(tmp_path: Path, wal: Path) -> None:
    with Store.open(tmp_path / "db.duckdb") as store:
        commit(store, 1)
        store.checkpoint()
        assert size(wal) == 0
