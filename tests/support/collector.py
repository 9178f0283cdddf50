"""A real collector process for tests, on free ports, with a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from tests.support.networks import Network
from tests.support.ports import free_neighbours, free_port
from tests.support.waiting import wait_until

from allranks_bus.addresses import Address, parse_address
from allranks_bus.home import read_endpoint
from allranks_bus.spool_directory import find_spools

ROOT = Path(__file__).parents[2]
_START_S = 90.0
_STOP_S = 60.0
_ANSWER_S = 60.0


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without what a launcher or a setting has left in it, and with this home."""
    foreign = ("ALLRANKS_", "SLURM_", "OMPI_", "PMI", "TORCHELASTIC_", "KUBERNETES_", "JOB_COMPLETION_")
    place = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    # Hundreds of processes need not compile our modules each.
    names = (*place, "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign) and name not in names}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "ALLRANKS_HOME": str(home),
        "ALLRANKS_SPOOL": str(home / "spool"),
        # Tests run on nearly full disks too.
        "ALLRANKS_FILES_RESERVE_MB": "64",
        **more,
    }


class CollectorProcess:
    """A collector that can be started, killed and started again; its ports stay.

    Args:
        home: its home, made if need be; its database is `home / "allranks.duckdb"`.
        settings: environment variables, on top of a clean environment.
        before_exec: called in the new process, as `preexec_fn` of Popen.
        network: it runs at the hub of this one; None: here.
    """

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, str] | None = None,
        before_exec: Callable[[], None] | None = None,
        network: Network | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.database = home / "allranks.duckdb"
        self.log = home / "collector.log"
        self._data_port = free_neighbours()
        self._http_port = free_port()
        self._settings = dict(settings or {})
        self._before_exec = before_exec
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return parse_address(self.url)

    @property
    def url(self) -> str:
        """For ALLRANKS_URL; the same before the first start and after each other."""
        host = "127.0.0.1" if self._network is None else self._network.hub.address
        return f"tcp://{host}:{self._data_port}"

    @property
    def http(self) -> str:
        """Where this process reaches its API."""
        port = self._http_port if self._network is None else self._network.published(self._http_port)
        return f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> CollectorProcess:
        """Starts it and returns once it listens."""
        assert not self.is_running
        at_hub: dict[str, str] = {}
        if self._network is not None:
            at_hub = {"ALLRANKS_HOST": self._network.hub.address, "ALLRANKS_INSECURE": "1"}
        env = clean_environment(
            self.home,
            ALLRANKS_DATA_PORT=str(self._data_port),
            ALLRANKS_HTTP_PORT=str(self._http_port),
            **at_hub,
            **self._settings,
        )
        wrapper = () if self._network is None else self._network.hub.wrapper
        with open(self.log, "ab") as log:
            self._process = process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "allranks_collector"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.home,
                preexec_fn=self._before_exec,
            )

        def listens() -> bool:
            assert process.poll() is None, f"the collector ended at once: {self.log.read_text()[-2000:]}"
            endpoint = read_endpoint(self.home)
            return endpoint is not None and endpoint.pid == process.pid

        wait_until(listens, "the collector listens", timeout_s=_START_S)
        return self

    def kill(self) -> None:
        """SIGKILL, and reaped."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit code once it has ended in its own way."""
        return self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(_STOP_S)

    def get(self, path: str, *, timeout_s: float = _ANSWER_S) -> Any:
        """The JSON that its API gives."""
        with urllib.request.urlopen(self.http + path, timeout=timeout_s) as response:
            return json.load(response)

    def ready(self) -> tuple[int, str]:
        """The status and the text of /readyz."""
        try:
            with urllib.request.urlopen(f"{self.http}/readyz", timeout=_ANSWER_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ranks(self, run: str) -> dict[int, dict[str, Any]]:
        """What the API says of a run's ranks; empty while it does not know the run."""
        try:
            rows = self.get(f"/api/runs/{run}/ranks")["ranks"]
        except urllib.error.HTTPError as error:
            with error:
                return {}
        return {row["rank"]: row for row in rows}

    def await_drained(self, *, timeout_s: float = 60.0) -> None:
        """Returns once no spool is left: all that was in them is stored."""
        spool = self.home / "spool"
        wait_until(lambda: not list(find_spools(spool)), "all spools are drained", timeout_s=timeout_s)

    def __enter__(self) -> CollectorProcess:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        if self.is_running:
            self.send(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        if self.is_running:
            self.kill()


@contextlib.contextmanager
def nobody_listens() -> Generator[str]:
    """The URL of a port that is nobody's, and stays so."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield f"tcp://127.0.0.1:{min(holder.getsockname()[1], 65_534)}"
