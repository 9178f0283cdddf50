"""The files of a run, as the embedded collector of a home gives them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from tests.support.waiting import wait_until

from allranks_bus.home import read_endpoint

_ARRIVE_S = 60.0
_REQUEST_S = 10.0


def await_files(home: Path, run: str, names: Collection[str]) -> dict[str, bytes]:
    """The content of all files of the run, by name, once these have arrived; its collector runs."""

    def all_there() -> set[str]:
        try:
            listed = json.loads(_get(home, f"/api/runs/{run}/files"))["files"]
        except (OSError, urllib.error.HTTPError):  # it is only starting, or does not know the run yet
            return set()
        found = {file["name"] for file in listed}
        return found if found >= set(names) else set()

    found = wait_until(all_there, f"the collector has {sorted(names)}", timeout_s=_ARRIVE_S)
    return {name: _get(home, f"/api/runs/{run}/files/{quote(name)}") for name in found}


def _get(home: Path, path: str) -> bytes:
    endpoint = read_endpoint(home)
    if endpoint is None:
        raise OSError(f"no collector runs in {home}")
    with urllib.request.urlopen(endpoint.http + path, timeout=_REQUEST_S) as response:
        body: bytes = response.read()
    return body
