"""Gathers what the doctor's checks need: from the operating system, the running collector, and the network."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import zmq

from allranks_bus.addresses import parse_address
from allranks_bus.errors import AddressError, AllranksError
from allranks_bus.files.outbox import find_outboxes
from allranks_bus.home import file_system, home_dir, read_endpoint, spool_roots
from allranks_bus.version import PROTOCOL_VERSION, __version__
from allranks_collector import doctor
from allranks_collector.doctor import Finding, FolderFacts, PortFacts, Reached
from allranks_collector.files import default_reserve_bytes
from allranks_collector.settings import Settings, load_settings
from allranks_collector.spools import look_at_spools, orphans

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from allranks_bus.home import Endpoint

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Told:
    """What a collector told when it was asked over HTTP; all of it empty where none was, or it did not answer.

    Attributes:
        url: where it was asked; None where no collector is known.
        status: its `/api/collector`.
        took_s: how long the answer took.
        at: the unix time in the middle of that.
    """

    url: str | None = None
    status: Mapping[str, Any] = field(default_factory=dict[str, Any])
    took_s: float = 0.0
    at: float = 0.0

    @property
    def clock_offset_s(self) -> float | None:
        """The collector's clock less ours, to within half of `took_s`; None where it does not tell its time."""
        theirs = self.status.get("time")
        return float(theirs) - self.at if isinstance(theirs, (int, float)) else None


def examine(env: Mapping[str, str], told: Told) -> tuple[list[Finding], Settings | None]:
    """All findings, and the settings that were found (None where they cannot be read)."""
    try:
        settings, problem = load_settings({}, env), ""
    except AllranksError as error:
        settings, problem = None, str(error)
    endpoint = read_endpoint(home_dir(env))
    findings = [doctor.check_settings(settings, problem), doctor.check_url(env.get("ALLRANKS_URL"))]
    findings += doctor.check_collector(_describe(endpoint), _try_all(env, endpoint, told.url))
    if settings is not None:
        findings += [doctor.check_port(facts) for facts in port_facts(settings, endpoint)]
    named = {"allranks": "version", "protocol": "protocol"}
    theirs = {name: str(told.status[key]) for name, key in named.items() if key in told.status}
    findings += doctor.check_versions(our_versions(), theirs)
    for name, path in (("home", home_dir(env)), ("spool", next(spool_roots(env), None))):
        if path is not None:
            findings += doctor.check_folder(folder_facts(name, path))
    if settings is not None:
        facts = folder_facts("files", settings.files)
        findings += doctor.check_files(facts, held_bytes(settings.files), reserve_bytes(settings))
    findings.append(doctor.check_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)))
    findings.append(doctor.check_clock(told.clock_offset_s, told.took_s / 2))
    waiting = orphans(look_at_spools(spool_roots(env)))
    drained = endpoint is not None and (settings is None or settings.drain_orphans)
    findings.append(doctor.check_orphans(len(waiting), sum(spool.bytes for spool in waiting), drained))
    boxes = [box for root in spool_roots(env) for box in find_outboxes(root)]
    left = sum(not (box.has_users or box.is_shipped) for box in boxes)
    findings.append(doctor.check_outboxes(left, drained))
    return findings, settings


def _describe(endpoint: Endpoint | None) -> str | None:
    return None if endpoint is None else f"pid {endpoint.pid}, version {endpoint.version}, {endpoint.http}"


def _try_all(env: Mapping[str, str], endpoint: Endpoint | None, http_url: str | None) -> list[Reached]:
    tried: list[Reached] = []
    if http_url is not None:
        tried.append(Reached(http_url, _http_problem(http_url)))
    urls = dict.fromkeys(url for url in (env.get("ALLRANKS_URL"), endpoint.url if endpoint else None) if url)
    for url in urls:
        try:
            address = parse_address(url)
        except AddressError:
            continue  # check_url tells it
        tried += [Reached(target, _socket_problem(target)) for target in (address.data, address.control)]
    return tried


def _http_problem(url: str) -> str:
    try:
        status = _get(url, "/readyz").status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return "" if status == 200 else f"it is not ready (status {status})"


def _get(url: str, path: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname or "127.0.0.1", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def _socket_problem(target: str) -> str:
    """Why nobody accepts on a ZeroMQ endpoint; empty if somebody does."""
    scheme, _, rest = target.partition("://")
    try:
        if scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_TIMEOUT_S)
                probe.connect(rest)
        else:
            host, _, port = rest.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def port_facts(settings: Settings, endpoint: Endpoint | None) -> list[PortFacts]:
    """Who has the ports that the settings name."""
    ports = {"http_port": settings.http_port}
    if settings.ipc is None:
        ports |= {"data_port": settings.data_port, "data_port + 1": settings.data_port + 1}
    holders = _listeners()
    facts: list[PortFacts] = []
    for setting, port in ports.items():
        pid = holders.get(port)
        taken = port != 0 and (port in holders or not _is_free(settings.host, port))
        ours = endpoint is not None and pid == endpoint.pid
        name = setting.split(" ")[0]
        is_default = settings.sources.get(name, "default") == "default"
        facts.append(PortFacts(name, port, taken, ours, _process_name(pid), may_move=is_default))
    return facts


def _listeners() -> dict[int, int | None]:
    """The process that listens on each TCP port; None where the system does not tell."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return {}
    return {c.laddr.port: c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr}


def _process_name(pid: int | None) -> str:
    if pid is None:
        return ""
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def _is_free(host: str, port: int) -> bool:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), port), family=family).close()
    except OSError:
        return False
    return True


def our_versions() -> dict[str, str | None]:
    """The versions of what allranks stands on, in this environment."""
    return {
        "allranks": __version__,
        "protocol": str(PROTOCOL_VERSION),
        "python": platform.python_version(),
        "pyzmq": _version("pyzmq"),
        "libzmq": zmq.zmq_version(),
        "duckdb": _version("duckdb"),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def folder_facts(name: str, path: Path) -> FolderFacts:
    """The file system under a folder that may not be there yet."""
    existing = _existing(path)
    free = shutil.disk_usage(existing).free
    return FolderFacts(name, path, file_system(path), free, os.access(existing, os.W_OK | os.X_OK))


def reserve_bytes(settings: Settings) -> int:
    """What the runs' files leave free of their disk."""
    if settings.files_reserve_mb is not None:
        return settings.files_reserve_mb << 20
    return default_reserve_bytes(shutil.disk_usage(_existing(settings.files)).total)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def held_bytes(folder: Path) -> int:
    """What all files under a folder have in them."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_size
    return total
