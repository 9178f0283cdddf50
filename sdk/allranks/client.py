"""Reading back what was logged: `allranks.Client` asks a collector, and answers with plain Python values.

What is one thing is a dict, and what is a table is a dict of columns of one length, which pandas.DataFrame(…),
polars.DataFrame(…) and pyarrow.table(…) take as they are. Nothing of these is needed here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from allranks_bus.errors import AllranksError
from allranks_bus.files.download import DownloadFailed, content_at, download_file
from allranks_bus.home import home_dir, read_endpoint
from allranks_bus.http_client import HttpClient, HttpError, Params, Refused, Unreachable, segment

__all__ = ["Client", "DownloadFailed", "HttpError", "NoCollector", "Refused", "Unreachable"]

Table = dict[str, list[Any]]

# The whole of one question; an export of a long run takes its time.
TIMEOUT_S = 60.0
EXPORT_TIMEOUT_S = 3600.0
PAGE_ROWS = 1000
PAGE_LINES = 5000
EVENT_ROWS = 10_000

_WHO = ("key", "rank", "attempt")
_RANK_COLUMNS = (*_WHO, "x", "step", "time", "value", "min", "max", "count", "nonfinite")
_REDUCED_COLUMNS = (
    *("key", "attempt", "x", "step", "mean", "min", "max"),
    *("min_rank", "max_rank", "count", "nonfinite"),
)
_RAW_COLUMNS = (*_WHO, "step", "time", "value")
_EVENT_COLUMNS = ("event", "time", "kind", "rank", "attempt", "host", "pid", "body")
_OBJECT_COLUMNS = (*_WHO, "step", "time", "type", "value")
_FILE_COLUMNS = ("name", "host", "rank", "size", "digest", "modified", "stored", "versions")
_KEY_COLUMNS = (
    *("key", "kind", "ranks", "count", "last_step", "last", "min", "max"),
    *("step_metric", "summary"),
)
_LINE_COLUMNS = ("time", "rank", "attempt", "host", "stream", "line", "text", "open")
_RANKS_COLUMNS = (
    *("rank", "attempt", "local_rank", "host", "pid", "state", "last_step", "last_seen", "started_at"),
    *("ended_at", "exit_code", "signal", "reason", "exception", "dropped", "events", "children"),
)


class NoCollector(AllranksError):
    """Nothing says where a collector is."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"no collector of yours is running (home {home}): start one with `allranks up`, "
            "or name one with Client(url=…) or ALLRANKS_HTTP, such as http://127.0.0.1:5570"
        )


class Client:
    """Reads runs from a collector. It holds no connection open, and may be shared between threads and pickled.

    Runs are named by id, by a beginning of it that no other run has, or by a name that no other run has. Times are
    Unix seconds. Values that are not finite come as None. Every method raises

    - Unreachable: no collector answers, or not in time;
    - Refused: the collector does not know the run (`status` 404), several fit (409), or an argument is wrong (400).

    Args:
        url: the collector's HTTP address, such as http://127.0.0.1:5570. None: ALLRANKS_HTTP, else the collector
            that runs for this user on this machine.
        timeout_s: how long one question may take.

    Raises:
        NoCollector: there is no url, and no collector of this user runs.
        SettingError: the url is not an HTTP address.
    """

    def __init__(self, url: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = find_url(url, os.environ)
        self._timeout_s = timeout_s

    def runs(
        self,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The runs, newest first; each a dict with at least id, project, group, name, state, notes, tags, config,
        summary, world_size, attempt, ranks_seen, created_at, last_seen, last_step and ended_at.

        Args:
            project: only this project's.
            group: only this group's.
            state: only those that are expected, running, stalled, unreachable, finished, failed, killed,
                preempted or dead.
            limit: at most so many; None for all.
        """
        found: list[dict[str, Any]] = []
        while limit is None or len(found) < limit:
            rows = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(found))
            params: Params = {
                "project": project,
                "group": group,
                "state": state,
                "limit": rows,
                "offset": len(found),
            }
            page = self._http.get("/api/runs", params)["runs"]
            found += page
            if len(page) < rows:
                break
        return found

    def run(self, id: str) -> dict[str, Any]:  # noqa: A002
        """One run as in `runs`, with its attempts and the definitions of its metrics."""
        return dict(self._ask(id, ""))

    def ranks(self, id: str, attempt: int | None = None) -> Table:  # noqa: A002
        """The ranks of an attempt (None: the newest), a row each, in order.

        Columns: rank, attempt, local_rank, host, pid, state (expected, running, stalled, unreachable, dead, failed,
        finished), last_step, last_seen, started_at, ended_at, exit_code, signal, reason, exception (a dict), dropped,
        events, children (a list of dicts).
        """
        return _table(self._ask(id, "/ranks", {"attempt": attempt})["ranks"], _RANKS_COLUMNS)

    def logs(
        self,
        id: str,  # noqa: A002
        ranks: int | Iterable[int] | str | None = None,
        stream: str | None = None,
        attempt: int | str | None = None,
        limit: int | None = None,
        *,
        grep: str | None = None,
        begin: float | None = None,
        end: float | None = None,
        odd: bool = False,
    ) -> Table:
        """What the ranks printed, a row for each line, by time.

        Args:
            id: the run.
            ranks: one rank, several, or text as in "0-3,7"; None for all.
            stream: "stdout" or "stderr", and notes beside either; None for all.
            attempt: a number, "all", or None for the newest.
            limit: the newest so many, up to 10,000; None for all.
            grep: only lines with this regular expression (RE2), in their text without colours.
            begin: only from this time on.
            end: only from before this time.
            odd: only what one rank alone has printed; numbers are taken as equal.

        Columns: time, rank, attempt, host, stream ("note" where the collector says what was not kept), line (its
        number in its stream), text (as people see it; of escape sequences only colours are left), open (it may still
        change).
        """
        asked: Params = {
            "ranks": _ranks(ranks),
            "stream": stream,
            "attempt": attempt,
            "grep": grep,
            "begin": begin,
            "end": end,
            "odd": odd or None,
        }
        if limit is not None:
            return _table(self._ask(id, "/logs", {**asked, "limit": limit})["lines"], _LINE_COLUMNS)
        rows: list[dict[str, Any]] = []
        after: str | None = "0"
        while after is not None:
            page = self._ask(id, "/logs", {**asked, "after": after, "limit": PAGE_LINES})
            rows += page["lines"]
            after = page["next"]
        return _table(rows, _LINE_COLUMNS)

    def keys(self, id: str) -> Table:  # noqa: A002
        """The keys of the run, a row each.

        Columns: key, kind (metric, system, object), ranks (how many have it), count, last_step, last (the mean over
        ranks), min, max, step_metric, summary.
        """
        return _table(self._ask(id, "/keys")["keys"], _KEY_COLUMNS)

    def metrics(
        self,
        id: str,  # noqa: A002
        keys: str | Iterable[str] | None = None,
        ranks: int | Iterable[int] | str | None = None,
        reduce: str | None = None,
        buckets: int = 1000,
        step_range: tuple[int | None, int | None] | None = None,
        attempt: int | str | None = None,
        x: str = "step",
    ) -> Table:
        """Curves for charts: at most `buckets` rows for each key and rank, however long the run is.

        Args:
            id: the run.
            keys: one metric or several; None for all.
            ranks: one rank, several, or text as in "0-3,7"; None for all.
            reduce: None for a curve per rank, "ranks" for one over all ranks.
            buckets: at most so many rows a curve.
            step_range: first and last step, both included; None on either side for no limit.
            attempt: a number, "all", or None: what was done again after a restart is there once, as the newest
                attempt did it.
            x: "step", "time" (seconds since the run was created), or a metric, joined by rank and step.

        Returns:
            Columns, a row for each bucket. For each rank: key, rank, attempt, x, step and time of its first point,
            value (the mean), min, max, count (of finite values), nonfinite. Over ranks: key, attempt, x, step, mean,
            min, max, min_rank, max_rank (who had them), count, nonfinite.
        """
        params = {
            "key": _names(keys),
            "ranks": _ranks(ranks),
            "reduce": reduce or "none",
            "buckets": max(1, buckets),
            "attempt": attempt,
            "x": x,
            **_steps(step_range),
        }
        series = self._ask(id, "/metrics", params)["series"]
        return _long(series, _REDUCED_COLUMNS if reduce == "ranks" else _RANK_COLUMNS)

    def history(
        self,
        id: str,  # noqa: A002
        keys: str | Iterable[str] | None = None,
        ranks: int | Iterable[int] | str | None = None,
        step_range: tuple[int | None, int | None] | None = None,
        attempt: int | str | None = None,
    ) -> Table:
        """Every point that was logged; arguments as for `metrics`. For all of a long run, `export` is lighter.

        Returns:
            Columns key, rank, attempt, step, time, value: a row for each point, by key, attempt, rank and step.
        """
        if keys is None:
            known = self.keys(id)
            keys = [key for key, kind in zip(known["key"], known["kind"], strict=True) if kind == "metric"]
        table: Table = {name: [] for name in _RAW_COLUMNS}
        for key in _names(keys) or ():  # one at a time: the collector bounds what it makes at once
            params = {"key": key, "ranks": _ranks(ranks), "buckets": 0, "attempt": attempt, **_steps(step_range)}
            for name, column in _long(self._ask(id, "/metrics", params)["series"], _RAW_COLUMNS).items():
                table[name] += column
        return table

    def system(
        self,
        id: str,  # noqa: A002
        keys: str | Iterable[str] | None = None,
        ranks: int | Iterable[int] | str | None = None,
        buckets: int = 1000,
    ) -> Table:
        """The figures of processes and hosts; columns as those of `metrics`, with x in seconds since creation."""
        params = {"key": _names(keys), "ranks": _ranks(ranks), "buckets": max(1, buckets)}
        return _long(self._ask(id, "/system", params)["series"], _RANK_COLUMNS)

    def events(self, id: str, kind: str | None = None) -> Table:  # noqa: A002
        """What happened to the run's writers, a row each, in order: opened, closed, state, dropped, gap …

        Columns: event (its number), time, kind, rank, attempt, host, pid, body (JSON text).
        """
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["event"] if found else -1
            page = self._ask(id, "/events", {"kind": kind, "after": after, "limit": EVENT_ROWS})["events"]
            found += [{**row, "body": json.dumps(row["body"])} for row in page]
            if len(page) < EVENT_ROWS:
                return _table(found, _EVENT_COLUMNS)

    def objects(
        self,
        id: str,  # noqa: A002
        key: str | None = None,
        ranks: int | Iterable[int] | str | None = None,
        step_range: tuple[int | None, int | None] | None = None,
        limit: int = 1000,
    ) -> Table:
        """Values that are not numbers, a row each, by key, attempt, rank and step: the newest `limit`.

        Columns: key, rank, attempt, step, time, type, value. Where type is "text", value is the text; else value is
        JSON text of the object of this type (histogram …).
        """
        params = {"key": key, "ranks": _ranks(ranks), "limit": limit, **_steps(step_range)}
        rows = self._ask(id, "/objects", params)["objects"]
        return _table([{**row, **_typed(row["value"])} for row in rows], _OBJECT_COLUMNS)

    def export(
        self,
        id: str,  # noqa: A002
        what: str = "metrics",
        format: str = "parquet",  # noqa: A002
        path: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Save one whole table of the run as a file; the collector writes it, so nothing large passes through here.

        Args:
            id: the run.
            what: metrics or system (rows of key, rank, attempt, step, time, value), events, ranks, config, summary.
            format: parquet, csv or jsonl.
            path: the file; None for ID-WHAT.FORMAT in the working directory. An old one stays until all has come.

        Returns:
            The file's path.

        Raises:
            OSError: the file cannot be written.
        """
        target = Path(path) if path is not None else Path(f"{self.run(id)['id']}-{what}.{format}")
        params: Params = {"what": what, "format": format}
        self._http.download(f"/api/runs/{segment(id)}/export", target, params, timeout_s=EXPORT_TIMEOUT_S)
        return target

    def files(self, id: str) -> Table:  # noqa: A002
        """The files that the run has sent, the newest version of each, a row each, by name and host.

        Columns: name (a relative path), host, rank (None where it is nobody's in particular), size, digest (SHA-256
        in hex), modified, stored, versions (how many contents it has had).
        """
        return _table(self._ask(id, "/files")["files"], _FILE_COLUMNS)

    def download(
        self,
        id: str,  # noqa: A002
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        host: str | None = None,
        digest: str | None = None,
    ) -> Path:
        """Save one file of the run. It is checked, and appears whole; a download that broke off is gone on with.

        Args:
            id: the run.
            name: of the file, as in `files`.
            path: where to; a folder takes it under the last part of its name, and None means the working directory.
            host: whose; needed where several hosts have files of this name that differ.
            digest: of an older version; None for the newest.

        Returns:
            The file's path.

        Raises:
            DownloadFailed: what came is not the file that is stored.
            OSError: the file cannot be written.
        """
        target = Path(path) if path is not None else Path()
        if target.is_dir():
            target /= PurePosixPath(name).name
        where = f"/api/runs/{segment(id)}/files/{quote(name)}"
        params: Params = {"host": host, "digest": digest}
        content = content_at(self._http, where, params)
        download_file(self._http, where, {**params, "digest": content.digest}, target, content)
        return target

    @property
    def _http(self) -> HttpClient:
        return HttpClient(self.url, timeout_s=self._timeout_s)

    def _ask(self, run: str, what: str, params: Params | None = None) -> Any:
        return self._http.get(f"/api/runs/{segment(run)}{what}", params)


def find_url(url: str | None, env: Mapping[str, str]) -> str:
    """The HTTP address of the collector to ask: `url`, ALLRANKS_HTTP, or this user's embedded collector's.

    Raises:
        NoCollector: none of these is there.
        SettingError: it is not an HTTP address.
    """
    named = url or env.get("ALLRANKS_HTTP")
    if named:
        return HttpClient(named).url
    home = home_dir(env)
    endpoint = read_endpoint(home)
    if endpoint is None:
        raise NoCollector(home)
    return endpoint.http


def _names(keys: str | Iterable[str] | None) -> list[str] | None:
    if keys is None:
        return None
    return [keys] if isinstance(keys, str) else list(keys)


def _ranks(ranks: int | Iterable[int] | str | None) -> str | None:
    if ranks is None or isinstance(ranks, str):
        return ranks
    return str(ranks) if isinstance(ranks, int) else ",".join(str(int(rank)) for rank in ranks)


def _steps(step_range: tuple[int | None, int | None] | None) -> dict[str, int | None]:
    first, last = step_range or (None, None)
    return {"step_min": first, "step_max": last}


def _typed(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return {"type": "text", "value": value}
    kind = value.get("_type", "object") if isinstance(value, dict) else type(value).__name__
    return {"type": str(kind), "value": json.dumps(value)}


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    return {name: [row.get(name) for row in rows] for name in columns}


def _long(series: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Curves one under the other: what a curve has once stands in each of its rows."""
    table: Table = {name: [] for name in columns}
    for curve in series:
        rows = len(curve["step"])
        for name in columns:
            value = curve.get(name)
            table[name] += value if isinstance(value, list) else [value] * rows
    return table
