"""What is stored, as the database file says, where no collector has it open."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from allranks_bus.files.download import Content, copy_file
from allranks_collector.cli.common import CommandError
from allranks_collector.cli.reader import PAGE, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from allranks_bus.http_client import Params
    from allranks_collector.queries.line_order import LineOrders
    from allranks_collector.settings import Settings
    from allranks_collector.store import Store

    Json = dict[str, Any]


class LocalReader:
    """Reads the database file itself, where no collector has it open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._orders: LineOrders | None = None

    @contextlib.contextmanager
    def _store(self, *, read_only: bool = True) -> Generator[Store]:
        from allranks_collector.store import Store, StoreMissing

        settings = self._settings
        if not settings.database.exists():
            raise StoreMissing(settings.database)  # DuckDB would make one to write into
        limits = {"memory_limit_mb": settings.memory_limit_mb, "threads": settings.threads}
        with Store.open(settings.database, read_only=read_only, **limits) as store:
            yield store

    @contextlib.contextmanager
    def _cursor(self) -> Generator[DuckDBPyConnection]:
        from allranks_collector.queries.absent import tell_the_gone

        with self._store() as store, store.cursor() as cursor:
            tell_the_gone(cursor)
            yield cursor

    def runs(
        self,
        *,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> list[Json]:
        from allranks_collector.queries.runs import list_runs

        if not self._settings.database.exists():
            return []
        with self._cursor() as cursor:

            def page(offset: int, count: int) -> list[Json]:
                answer = list_runs(cursor, project=project, group=group, state=state, limit=count, offset=offset)
                return list(answer["runs"])

            return pages(page, limit)

    def run(self, reference: str) -> Json:
        from allranks_collector.queries.runs import get_run
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return get_run(cursor, find_run(cursor, reference))

    def ranks(self, reference: str, attempt: int | None = None) -> list[Json]:
        from allranks_collector.queries.ranks import list_ranks
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_ranks(cursor, find_run(cursor, reference), attempt=attempt)

    def claims(self, reference: str, attempt: int | None = None) -> list[str]:
        from allranks_collector.queries.ranks import list_claims
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_claims(cursor, find_run(cursor, reference), attempt=attempt)

    def logs(self, reference: str, wanted: Params) -> Json:
        from allranks_collector.queries.line_order import LineOrders
        from allranks_collector.queries.logs import LogRequest, list_logs
        from allranks_collector.queries.select import find_run, parse_attempt, parse_ranks

        self._orders = self._orders or LineOrders()
        asked: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        asked["ranks"] = parse_ranks(asked.get("ranks"))
        asked["attempt"] = parse_attempt(asked.get("attempt"))
        with self._cursor() as cursor:
            return list_logs(cursor, find_run(cursor, reference), LogRequest(**asked), self._orders)

    def why(self, reference: str, attempt: int | None = None) -> Json:
        from allranks_collector.queries.select import find_run
        from allranks_collector.queries.why import why

        with self._cursor() as cursor:
            return why(cursor, find_run(cursor, reference), attempt=attempt)

    def differences(self, reference: str, attempt: int | None = None) -> Json:
        from allranks_collector.queries.differences import list_differences
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_differences(cursor, find_run(cursor, reference), attempt=attempt)

    def stragglers(self, reference: str, attempt: int | None = None) -> Json:
        from allranks_collector.queries.select import find_run
        from allranks_collector.queries.stragglers import list_stragglers

        with self._cursor() as cursor:
            return list_stragglers(cursor, find_run(cursor, reference), attempt=attempt)

    def attempts(self, reference: str) -> Json:
        from allranks_collector.queries.attempts import list_attempts
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_attempts(cursor, find_run(cursor, reference))

    def events(self, reference: str, kind: str) -> list[Json]:
        from allranks_collector.queries.records import list_events
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_events(cursor, find_run(cursor, reference), kind=kind, limit=PAGE)

    def keys(self, reference: str) -> list[Json]:
        from allranks_collector.queries.keys import list_keys
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            return list_keys(cursor, find_run(cursor, reference))

    def curves(self, reference: str, key: str, wanted: Params) -> list[Json]:
        from allranks_collector.queries.curves import CurveRequest, metrics, plain
        from allranks_collector.queries.select import find_run, parse_ranks

        asked: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        asked["ranks"] = parse_ranks(asked.get("ranks"))
        with self._cursor() as cursor:
            return list(plain(metrics(cursor, find_run(cursor, reference), CurveRequest([key], **asked)))["series"])

    def export(self, reference: str, what: str, format_: str, path: Path) -> None:
        from allranks_collector.queries.export import export
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            export(cursor, find_run(cursor, reference), what, format_, path)

    def files(self, reference: str) -> Json:
        from allranks_collector.queries.files import list_files
        from allranks_collector.queries.select import find_run

        with self._cursor() as cursor:
            found = list_files(cursor, find_run(cursor, reference))
        return {"files": found, "arriving": [], "total_bytes": sum(file["size"] for file in found)}

    def fetch(self, reference: str, file: Json, target: Path, on_progress: Callable[[int], None]) -> None:  # noqa: ARG002
        from allranks_collector.files import FileStore

        content = Content(file["size"], file["digest"])
        copy_file(FileStore(self._settings.files).blob(content.digest), target, content, on_progress)

    def stacks(self, reference: str, ranks: str | None = None, *, ask: bool = False) -> Json:  # noqa: ARG002
        from allranks_collector.queries.select import find_run
        from allranks_collector.queries.stacks import newest_stacks

        if ask:
            raise CommandError("no collector runs here, and so no rank can be asked; --last shows what is stored")
        with self._cursor() as cursor:
            return newest_stacks(cursor, find_run(cursor, reference))

    def remove(self, reference: str, *, force: bool = False) -> None:
        from allranks_collector.file_rows import remove_run
        from allranks_collector.files import FileStore
        from allranks_collector.queries.absent import tell_the_gone
        from allranks_collector.queries.runs import state_of
        from allranks_collector.queries.select import find_run

        with self._store(read_only=False) as store:
            with store.cursor() as cursor:
                tell_the_gone(cursor)
                run = find_run(cursor, reference)
                state = state_of(cursor, run)
            if state == "running" and not force:
                raise CommandError(f"the run {run.id} is running: end it first, or give --force")
            remove_run(store, FileStore(self._settings.files), run.run)
