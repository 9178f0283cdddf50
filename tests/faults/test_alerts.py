"""Alerts from end to end: ranks are killed, a real collector tells a real webhook and a command, and keeps it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.collector import CollectorProcess, clean_environment
from tests.support.pipelines import peer
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until
from tests.support.writers import HandWriter

from allranks_bus import events
from allranks_bus.events import Kind

_WITHIN_S = 60.0
_CLI = "import sys; from allranks_collector.cli import main; sys.exit(main())"


class _Webhook(ThreadingHTTPServer):
    """/hang never answers, /late refuses the first message, and all else is taken."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.refused: list[str] = []
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
        if self.path.startswith("/late") and not self.hook.refused:
            self.hook.refused.append(self.path)
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()
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


def test_who_is_stopped_and_goes_on_is_told_once_each_though_target_and_collector_fail_in_between(
    home: Path, webhook: _Webhook, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    settings = {
        "ALLRANKS_ALERT_TARGETS": f"json://127.0.0.1:{webhook.server_port}/late",
        "ALLRANKS_HEARTBEAT_TIMEOUT_S": "1",
    }

    def alerts(kind: str) -> list[dict[str, Any]]:
        found = collector.get(f"/api/runs/{RUN}/events?kind={kind}")["events"]
        return [event["body"] for event in found]

    with collector_of(settings) as collector, Job(home, collector.url).ranks(1, "finish", "0", "0.01") as ranks:
        ranks[0].reach(200)
        wait_until(lambda: collector.ranks(RUN), "the rank is known")
        ranks[0].process.send_signal(signal.SIGSTOP)
        (late,) = wait_until(lambda: alerts("alert-late"), "it is told in the end", timeout_s=_WITHIN_S)
        assert (late["target"], late["tries"], late["problem"]) == ("json (1)", 2, "")
        (alerted,) = alerts("alerted")
        assert alerted["targets"]["json (1)"].endswith("; it is tried again")
        assert "503" in alerted["targets"]["json (1)"]
        collector.kill()
        collector.start()
        ranks[0].process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(alerts("alerted")) == 2, "that it goes on is told", timeout_s=_WITHIN_S)
        first, second = (posted["title"] for posted in webhook.posted)
        assert " is stalled (stopped by a signal (SIGSTOP) for " in first
        assert second.endswith(" is running again")


def test_who_failed_and_a_run_that_sends_no_data_are_alerts(
    home: Path, webhook: _Webhook, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    settings = {
        "ALLRANKS_ALERT_TARGETS": f"json://127.0.0.1:{webhook.server_port}/ok",
        "ALLRANKS_ALERT_RULES": "failed, no-data",
        "ALLRANKS_ALERT_NO_DATA_S": "3",
    }
    with collector_of(settings) as collector:
        job = Job(home, collector.url)
        with job.ranks(1, "raise", "50") as failing, replace(job, run="quiet").ranks(1, "hang", "50"):
            assert failing[0].wait() == 1
            wait_until(lambda: len(webhook.posted) == 2, "both are told", timeout_s=_WITHIN_S)
        failed, quiet = sorted((posted["title"] for posted in webhook.posted), key=lambda title: "no data" in title)
        assert failed.endswith(" has failed (ValueError: the loss is not a number)")
        assert re.fullmatch(r"run \S+ has sent no data for 3 s", quiet)


def test_the_same_alert_from_64_ranks_is_one_message(
    home: Path, webhook: _Webhook, collector_of: Callable[[dict[str, str]], CollectorProcess]
) -> None:
    settings = {"ALLRANKS_ALERT_TARGETS": f"json://127.0.0.1:{webhook.server_port}/ok"}
    writers = [HandWriter(number, rank=number - 1, world_size=64) for number in range(1, 65)]
    said = {"title": "lr is odd", "text": "It rose to 3.", "level": "WARN"}
    with collector_of(settings) as collector, peer(collector.address, writers[0]) as one:
        for writer in writers:
            one.send(writer.batch([writer.open(), events.pack(Kind.ALERT, time.time_ns(), said)], is_urgent=True))
        (posted,) = wait_until(lambda: webhook.posted, "it is told", timeout_s=_WITHIN_S)
        wait_until(lambda: collector.get("/api/runs/run-1/events?kind=alerted")["events"], "it is kept")
        assert posted["title"].endswith(": lr is odd")
        assert posted["message"].splitlines()[:2] == ["It rose to 3.", "from 64 ranks: 0-63"]
        assert len(webhook.posted) == 1


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
