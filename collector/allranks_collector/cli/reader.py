"""One interface to what is stored, whether a collector runs (then over HTTP) or not (then on the file itself)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from allranks_bus.files.download import Content, copy_file, download_file
from allranks_bus.home import home_dir, read_endpoint
from allranks_bus.http_client import HttpClient, Params, segment
from allranks_collector.cli.common import CommandError, UsageError
from allranks_collector.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from allranks_collector.queries.line_order import LineOrders
    from allranks_collector.settings import Settings
    from allranks_collector.store import Store

    Json = dict[str, Any]

PAGE = 1000
EXPORT_TIMEOUT_S = 3600.0


class Reader(Protocol):
    """What the commands ask. A run is named by its id, the beginning of it, or its name.

    Every method raises AllranksError with one clear line where the answer is no.
    """

    def runs(
        self,
        *,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> list[Json]:
        """Runs, newest first."""
        ...

    def run(self, reference: str) -> Json:
        """One run."""
        ...

    def ranks(self, reference: str, attempt: int | None = None) -> list[Json]:
        """A run's ranks in one attempt; None is the newest."""
        ...

    def claims(self, reference: str, attempt: int | None = None) -> list[str]:
        """What is odd about who the ranks of an attempt say they are, one sentence each."""
        ...

    def logs(self, reference: str, wanted: Params) -> Json:
        """A page of what the ranks printed: `queries.list_logs`, asked by the names of the API."""
        ...

    def why(self, reference: str, attempt: int | None = None) -> Json:
        """Which rank failed first, who followed and who is missing: `queries.why`."""
        ...

    def differences(self, reference: str, attempt: int | None = None) -> Json:
        """What differs between the ranks of one attempt; None is the newest."""
        ...

    def stragglers(self, reference: str, attempt: int | None = None) -> Json:
        """Which ranks of one attempt cost the others time; None is the newest."""
        ...

    def attempts(self, reference: str) -> Json:
        """What each attempt of a run did, and the run's goodput."""
        ...

    def events(self, reference: str, kind: str) -> list[Json]:
        """The newest events of this kind, in order."""
        ...

    def keys(self, reference: str) -> list[Json]:
        """The keys of a run, with their figures."""
        ...

    def curves(self, reference: str, key: str, wanted: Params) -> list[Json]:
        """The curves of a metric: `queries.metrics`, asked by the names of the API."""
        ...

    def export(self, reference: str, what: str, format_: str, path: Path) -> None:
        """Write one kind of a run's data as the file `path`. Raises OSError where it cannot be written."""
        ...

    def files(self, reference: str) -> Json:
        """The files of a run as `files`, those that are on their way as `arriving`, and `total_bytes`."""
        ...

    def fetch(self, reference: str, file: Json, target: Path, on_progress: Callable[[int], None]) -> None:
        """Make one of `files` the file `target`, checked. Raises OSError where it cannot be written."""
        ...

    def stacks(self, reference: str, ranks: str | None = None, *, ask: bool = False) -> Json:
        """Where the ranks of a run stood when they were last asked; with `ask` they are asked now, these or all."""
        ...

    def remove(self, reference: str, *, force: bool = False) -> None:
        """Remove a run; with force, also one that is running."""
        ...


class Transport(Protocol):
    """The part of the HTTP client that a reader stands on."""

    def get(self, path: str, params: Params | None = None) -> Any: ...

    def post(self, path: str, params: Params | None = None) -> Any: ...

    def delete(self, path: str, params: Params | None = None) -> Any: ...

    def download(
        self, path: str, target: Path, params: Params | None = None, *, timeout_s: float | None = None
    ) -> int: ...


class RemoteReader:
    """Asks a collector over HTTP."""

    def __init__(self, url: str, transport: Transport | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = transport or HttpClient(self.url)

    def runs(
        self,
        *,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> list[Json]:
        asked = {"project": project, "group": group, "state": state}

        def page(offset: int, count: int) -> list[Json]:
            return list(self._http.get("/api/runs", {**asked, "limit": count, "offset": offset})["runs"])

        return _pages(page, limit)

    def run(self, reference: str) -> Json:
        return dict(self._http.get(_path(reference)))

    def ranks(self, reference: str, attempt: int | None = None) -> list[Json]:
        return list(self._http.get(f"{_path(reference)}/ranks", {"attempt": attempt})["ranks"])

    def claims(self, reference: str, attempt: int | None = None) -> list[str]:
        return list(self._http.get(f"{_path(reference)}/ranks", {"attempt": attempt})["claims"])

    def logs(self, reference: str, wanted: Params) -> Json:
        return dict(self._http.get(f"{_path(reference)}/logs", wanted))

    def why(self, reference: str, attempt: int | None = None) -> Json:
        return dict(self._http.get(f"{_path(reference)}/why", {"attempt": attempt}))

    def differences(self, reference: str, attempt: int | None = None) -> Json:
        return dict(self._http.get(f"{_path(reference)}/differences", {"attempt": attempt}))

    def stragglers(self, reference: str, attempt: int | None = None) -> Json:
        return dict(self._http.get(f"{_path(reference)}/stragglers", {"attempt": attempt}))

    def attempts(self, reference: str) -> Json:
        return dict(self._http.get(f"{_path(reference)}/attempts"))

    def events(self, reference: str, kind: str) -> list[Json]:
        return list(self._http.get(f"{_path(reference)}/events", {"kind": kind, "limit": PAGE})["events"])

    def keys(self, reference: str) -> list[Json]:
        return list(self._http.get(f"{_path(reference)}/keys")["keys"])

    def curves(self, reference: str, key: str, wanted: Params) -> list[Json]:
        return list(self._http.get(f"{_path(reference)}/metrics", {**wanted, "key": key})["series"])

    def export(self, reference: str, what: str, format_: str, path: Path) -> None:
        asked = {"what": what, "format": format_}
        self._http.download(f"{_path(reference)}/export", path, asked, timeout_s=EXPORT_TIMEOUT_S)

    def files(self, reference: str) -> Json:
        return dict(self._http.get(f"{_path(reference)}/files"))

    def fetch(self, reference: str, file: Json, target: Path, on_progress: Callable[[int], None]) -> None:
        path = f"{_path(reference)}/files/{quote(file['name'])}"
        asked = {"host": file["host"], "digest": file["digest"]}
        content = Content(file["size"], file["digest"])
        download_file(HttpClient(self.url), path, asked, target, content, on_progress)

    def stacks(self, reference: str, ranks: str | None = None, *, ask: bool = False) -> Json:
        path = f"{_path(reference)}/stacks"
        return dict(self._http.post(path, {"ranks": ranks}) if ask else self._http.get(path))

    def remove(self, reference: str, *, force: bool = False) -> None:
        self._http.delete(_path(reference), {"force": True if force else None})

    def status(self) -> Json:
        """What the collector tells of itself."""
        return dict(self._http.get("/api/collector"))


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

            return _pages(page, limit)

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


def find_collector(http: str | None, env: Mapping[str, str]) -> str | None:
    """The HTTP address of the collector to ask: as given, ALLRANKS_HTTP, or this user's running one; or None."""
    named = http or env.get("ALLRANKS_HTTP")
    if named:
        return named.rstrip("/")
    endpoint = read_endpoint(home_dir(env))
    return endpoint.http if endpoint else None


def open_reader(http: str | None, env: Mapping[str, str]) -> Reader:
    """The reader for what is stored: of the collector that answers, else of the database file."""
    url = find_collector(http, env)
    return LocalReader(load_settings({}, env)) if url is None else RemoteReader(url)


def check_attempt(reader: Reader, run: str, attempt: int | None) -> None:
    """A run that never had this attempt has no answer about it, not even an empty one.

    Raises:
        UsageError: so it is.
    """
    if attempt is None:
        return
    there = sorted(int(one["attempt"]) for one in reader.run(run)["attempts"])
    if there and attempt not in there:
        expected = f"{there[0]}" if len(there) == 1 else f"one of {', '.join(map(str, there))}"
        raise UsageError(f"--attempt {attempt} cannot be used: expected {expected}: the run had no other")


def _pages(page: Callable[[int, int], list[Json]], limit: int) -> list[Json]:
    """Up to `limit` rows out of `page(offset, count)`, which gives at most PAGE at once."""
    rows: list[Json] = []
    while len(rows) < limit:
        count = min(PAGE, limit - len(rows))
        got = page(len(rows), count)
        rows += got
        if len(got) < count:
            break
    return rows


def _path(reference: str) -> str:
    return f"/api/runs/{segment(reference)}"
