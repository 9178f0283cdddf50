"""Alerts from end to end: ranks are killed, a real collector tells a real webhook and a command, and keeps it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.collector import CollectorProcess, clean_environment
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

_WITHIN_S = 60.0
_CLI = "import sys; from allranks_collector.cli import main; sys.exit(main())"


class _Webhook(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    @property
    def hook(self) -> _Webhook:
        assert isinstance(self.server, _Webhook)
        return self.server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/hang"):
            self.hook.ended.wait(_WITHIN_S)
            return
        self.hook.posted.append(json.loads(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing of it is printed."""


@pytest.fixture
def webhook() -> Generator[_Webhook]:
    with _Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()


def test_killed_ranks_are_one_alert_to_webhook_and_command_whatever_another_target_does(
    home: Path, webhook: _Webhook, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    place, got = f"json://127.0.0.1:{webhook.server_port}", home.parent / "got"
    script = home.parent / "page.py"
    script.write_text(f"import sys\nopen({str(got)!r}, 'a').write(sys.stdin.read())\n")
    settings = {
        "ALLRANKS_ALERT_TARGETS": f"{place}/hang {place}/ok",
        "ALLRANKS_ALERT_COMMAND": f"{sys.executable} {script}",
    }
    with collector_of(settings) as collector, Job(home, collector.url).ranks(2, "finish") as ranks:
        for rank in ranks:
            rank.reach(100)
        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both ranks are known")
        for rank in ranks:
            rank.process.send_signal(signal.SIGKILL)
        (alert,) = wait_until(lambda: webhook.posted, "the webhook is told", timeout_s=_WITHIN_S)
        assert " has failed: rank " in alert["title"]
        assert alert["title"].endswith(" is dead (killed by SIGKILL), and 1 other")
        assert f"{collector.http}/runs/{RUN}" in alert["message"]
        told = wait_until(lambda: got.exists() and got.read_text(), "the command is told", timeout_s=_WITHIN_S)
        assert json.loads(str(told))["title"] == alert["title"]
        events = wait_until(
            lambda: collector.get(f"/api/runs/{RUN}/events?kind=alerted")["events"], "it is kept", timeout_s=_WITHIN_S
        )
        answers = events[0]["body"]["targets"]
        assert answers.pop("json (1)") not in ("", "sent")
        assert answers == {"json (2)": "sent", "command": "sent"}
        status = collector.get("/api/collector")["alerts"]
        assert (status["sent"], status["failed"], status["dropped"]) == (2, 1, 0)
        assert [bool(target["problem"]) for target in status["targets"]] == [True, False, False]
        for rank in ranks:
            rank.wait()


def test_a_test_says_how_each_target_answered(
    home: Path, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    with collector_of({"ALLRANKS_ALERT_COMMAND": "sh -c 'echo no pager >&2; exit 1'"}) as collector:
        command = [sys.executable, "-c", _CLI, "alerts", "test", "--http", collector.http]
        ended = subprocess.run(
            [*command, "--json"], env=clean_environment(home), capture_output=True, text=True, timeout=_WITHIN_S
        )
        told = {"name": "command", "sent": False, "problem": "no pager"}
        assert (ended.returncode, json.loads(ended.stdout)) == (1, {"targets": [told]}), ended.stderr


_TRAINING = """
import allranks
run = allranks.init(project="p", id="told", name="bert")
for step in range(3):
    run.log({"train/loss": float("nan") if step else 1.0, "grad": float("inf")}, step)
run.alert("lr is odd", "It rose to 3.", level="WARN")
"""


def test_a_loss_that_is_not_a_number_and_what_the_program_says_itself_are_alerts(
    home: Path, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    with collector_of({"ALLRANKS_ALERT_RULES": "nan, run-finished"}) as collector:
        env = clean_environment(home, ALLRANKS_URL=collector.url)
        subprocess.run([sys.executable, "-c", _TRAINING], env=env, check=True, timeout=_WITHIN_S, cwd=home.parent)

        def titles() -> list[str] | None:
            events = collector.get("/api/runs/told/events?kind=alerted")["events"]
            return sorted(event["body"]["title"] for event in events) if len(events) == 3 else None

        first, second, third = wait_until(titles, "all three are kept", timeout_s=_WITHIN_S)
        assert (first, second) == ("run bert has finished", "run bert: lr is odd")
        assert third.startswith("run bert: rank 0 on ")
        assert third.endswith(" says that train/loss is NaN at step 1")
