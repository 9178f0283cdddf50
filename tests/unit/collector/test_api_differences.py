"""Differences over HTTP: as the page of the API says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.serving import asking

from allranks_collector.api import ApiContext, create_app
from allranks_collector.api.differences import DifferencesAnswer
from allranks_collector.settings import Settings
from allranks_collector.testing import DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from pathlib import Path

    from allranks_collector.store import Store


def test_differences_are_as_the_openapi_page_says(store: Store, build: DatabaseBuilder, tmp_path: Path) -> None:
    run = build.run("a/b")
    for rank in range(2):
        writer = build.writer(run, rank, world_size=2)
        build.entry("config", run, writer, "width", rank)
        build.points(writer, "lr", [0.1, 0.1 + rank])
    settings = Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")
    with asking(create_app(ApiContext(store, StillLive(), settings)), "http://127.0.0.1:5570") as client:
        got = client.get("/api/runs/a/b/differences?attempt=1").json()
        missing = client.get("/api/runs/nothing/differences")
    assert DifferencesAnswer.model_validate(got).model_dump(exclude_unset=True) == got
    assert got["differences"][0]["text"] == "rank 0 has 0 · rank 1 has 1"
    assert got["diverged"][0]["step"] == 1
    assert missing.status_code == 404
