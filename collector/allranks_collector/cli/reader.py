"""One interface to what is stored, whether a collector runs (then over HTTP) or not (then on the file itself)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from allranks_bus.home import home_dir, read_endpoint
from allranks_collector.cli.common import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from allranks_bus.http_client import Params

    Json = dict[str, Any]

# At most so many rows are asked for at once.
PAGE = 1000


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
    if url is not None:
        from allranks_collector.cli.remote_reader import RemoteReader

        return RemoteReader(url)
    from allranks_collector.cli.local_reader import LocalReader
    from allranks_collector.settings import load_settings

    return LocalReader(load_settings({}, env))


def pages(page: Callable[[int, int], list[Json]], limit: int) -> list[Json]:
    """Up to `limit` rows out of `page(offset, count)`, which gives at most PAGE at once."""
    rows: list[Json] = []
    while len(rows) < limit:
        count = min(PAGE, limit - len(rows))
        got = page(len(rows), count)
        rows += got
        if len(got) < count:
            break
    return rows


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
