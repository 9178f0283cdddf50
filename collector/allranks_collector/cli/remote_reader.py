"""What is stored, as the collector that runs answers over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from allranks_bus.files.download import Content, download_file
from allranks_bus.http_client import HttpClient, Params, segment
from allranks_collector.cli.reader import PAGE, pages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Json = dict[str, Any]

EXPORT_TIMEOUT_S = 3600.0


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

        return pages(page, limit)

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


def _path(reference: str) -> str:
    return f"/api/runs/{segment(reference)}"
