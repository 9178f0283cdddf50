"""Targets, for real: a service over HTTP, one that hangs, one that redirects, and commands."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import wait_until

from allranks_collector.alerts.deliver import inward
from allranks_collector.alerts.rules import Message
from allranks_collector.alerts.targets import Answer, Target, deliver, targets_of

_MESSAGE = Message("r1", "dead", "ERROR", "run r1: rank 1 is dead", "step 7\nhttp://here", 1)
_DEADLINE_S = 60.0


class Webhook(ThreadingHTTPServer):
    """A service: /ok takes what is posted, /inward redirects to /secret, /hang waits, /status/N says N."""

    daemon_threads = True

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.asked: list[str] = []
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    @property
    def hook(self) -> Webhook:
        assert isinstance(self.server, Webhook)
        return self.server

    def do_POST(self) -> None:
        self.hook.asked.append(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/ok"):
            self.hook.posted.append(json.loads(body))
            self.send_response(200)
        elif self.path.startswith("/inward"):
            self.send_response(307)
            self.send_header("location", f"http://{self.hook.place}/secret")
        elif self.path.startswith("/hang"):
            self.hook.released.wait(_DEADLINE_S)
            return
        else:
            self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.hook.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing of it is printed."""


@pytest.fixture
def webhook() -> Generator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def _service(url: str) -> Target:
    (target,) = targets_of([url], ())
    return target


def _command(*words: str) -> Target:
    (target,) = targets_of((), words)
    return target


def test_a_service_gets_title_and_text(webhook: Webhook) -> None:
    assert deliver(_service(f"json://{webhook.place}/ok"), _MESSAGE, _DEADLINE_S) == Answer()
    (posted,) = webhook.posted
    assert (posted["title"], posted["message"]) == (_MESSAGE.title, _MESSAGE.text)
    assert posted["type"] == "failure"


def test_a_redirect_is_refused_in_one_line_and_not_followed(webhook: Webhook) -> None:
    answer = deliver(_service(f"json://{webhook.place}/inward"), _MESSAGE, _DEADLINE_S)
    assert answer == Answer(f"it answers with a redirect to http://{webhook.place}, which is refused", is_final=True)
    assert [path for path in webhook.asked if "secret" in path] == []


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (503, False), (429, False), (403, True), (404, True)])
def test_a_service_that_refuses_says_why_and_whether_for_good(webhook: Webhook, status: int, is_final: bool) -> None:
    answer = deliver(_service(f"json://{webhook.place}/status/{status}"), _MESSAGE, _DEADLINE_S)
    assert str(status) in answer.problem
    assert answer.is_final is is_final


def test_a_service_that_nobody_runs_may_run_later(webhook: Webhook) -> None:
    webhook.server_close()
    answer = deliver(_service(f"json://{webhook.place}/ok"), _MESSAGE, _DEADLINE_S)
    assert answer.problem
    assert not answer.is_final


_RESOLVER = """
import socket
ask = socket.getaddrinfo
def asked(host, *more, **named):
    return ask({address!r} if host == "hooks.example.org" else host, *more, **named)
socket.getaddrinfo = asked
"""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "which is this host itself (name it as localhost where that is meant)"),
        ("169.254.169.254", "where only a cloud's metadata and the like answer"),
    ],
)
def test_a_name_that_leads_inward_is_not_connected_to(
    webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_RESOLVER.format(address=address))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    url = f"json://hooks.example.org:{webhook.server_port}/ok"
    problem = f"hooks.example.org leads to {address}, {why}: refused"
    assert deliver(_service(url), _MESSAGE, _DEADLINE_S) == Answer(problem, is_final=True)
    assert webhook.asked == []


@pytest.mark.parametrize(
    ("host", "address", "is_right"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("mattermost.corp", "10.1.2.3", True),
        ("hooks.example.org", "93.184.216.34", True),
        ("hooks.example.org", "::ffff:127.0.0.1", False),
        ("hooks.example.org", "0.0.0.0", False),
        ("169.254.169.254", "169.254.169.254", False),
        ("hooks.example.org", "fe80::1%eth0", False),
        ("hooks.example.org", "fd00:ec2::254", False),
    ],
)
def test_which_addresses_a_name_may_lead_to(host: str, address: str, is_right: bool) -> None:
    assert (inward(host, address) == "") is is_right


def test_a_service_that_hangs_is_given_up_at_the_deadline(webhook: Webhook) -> None:
    assert deliver(_service(f"json://{webhook.place}/hang"), _MESSAGE, 2.5) == Answer("no answer within 2.5 s")


def test_where_apprise_is_not_installed_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "pip install 'allranks[alerts]'" in deliver(_service("json://h/x"), _MESSAGE, _DEADLINE_S).problem


def test_an_address_that_no_service_has_is_said() -> None:
    answer = deliver(_service("nosuch://x"), _MESSAGE, _DEADLINE_S)
    assert answer == Answer("apprise knows no service of this address", is_final=True)


def test_a_command_gets_the_alert_as_json_and_no_shell_sees_it(tmp_path: Path) -> None:
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read() + sys.argv[1])"
    assert deliver(_command(sys.executable, "-c", code, "; $(id) |"), _MESSAGE, _DEADLINE_S) == Answer()
    line, argument = (tmp_path / "got").read_text().split("\n")
    assert json.loads(line) == {
        "run": "r1",
        "rule": "dead",
        "level": "ERROR",
        "rank": 1,
        "title": _MESSAGE.title,
        "text": _MESSAGE.text,
    }
    assert argument == "; $(id) |"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("sh", "-c", "echo first; echo no route >&2; exit 3"), "no route"),
        (("sh", "-c", "exit 3"), "exit code 3"),
        (("sh", "-c", "kill -9 $$"), "killed by signal 9"),
        (("/nonexistent/command",), "it cannot be started: No such file or directory"),
    ],
)
def test_a_command_that_fails_says_why(words: tuple[str, ...], problem: str) -> None:
    assert deliver(_command(*words), _MESSAGE, _DEADLINE_S).problem == problem


def test_a_command_that_hangs_goes_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $$ $! > {pids}; while :; do echo on and on; done"
    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(deliver(_command("sh", "-c", script), _MESSAGE, 3.0)))
    caller.start()
    started = wait_until(lambda: pids.read_text().split() if pids.exists() else None, "it runs")
    caller.join(_DEADLINE_S)
    assert answers == [Answer("no answer within 3 s")]

    def is_gone(pid: str) -> bool:
        stat = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False)
        return not stat.stdout.strip() or stat.stdout.startswith("Z")

    for pid in started:
        wait_until(partial(is_gone, pid), f"{pid} is gone")


def test_a_command_that_leaves_somebody_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    assert deliver(_command("sh", "-c", "sleep 60 & exit 0"), _MESSAGE, _DEADLINE_S) == Answer()
    assert time.monotonic() - began < _DEADLINE_S / 2


def test_giving_up_ends_it_at_once() -> None:
    given_up = threading.Event()
    answers: list[Answer] = []
    target = _command("sleep", "1000")
    caller = threading.Thread(target=lambda: answers.append(deliver(target, _MESSAGE, 1000.0, given_up.is_set)))
    caller.start()
    given_up.set()
    caller.join(_DEADLINE_S)
    assert answers


def test_names_hold_nothing_secret() -> None:
    found = targets_of(["slack://TokenA/TokenB/TokenC", "json://me:password@host/x"], ["/usr/bin/page", "--key", "k"])
    assert [target.name for target in found] == ["slack (1)", "json (2)", "command"]
    assert not any("Token" in word or "password" in word for target in found[:2] for word in target.command)
