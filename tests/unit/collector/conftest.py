"""A fresh database for each test, and the means to fill and ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allranks_collector.store import Store
from allranks_collector.testing import DatabaseBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "test.duckdb", memory_limit_mb=256) as store:
        yield store


@pytest.fixture
def build(store: Store) -> DatabaseBuilder:
    return DatabaseBuilder(store)


@pytest.fixture
def cursor(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with store.cursor() as cursor:
        yield cursor
