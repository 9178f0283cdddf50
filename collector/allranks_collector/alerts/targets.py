"""Who gets alerts. Each target is a command that takes one on stdin and has a deadline; for services it is `deliver`.

Nothing of a service runs in the collector: what hangs is killed, with all that it has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from allranks_collector.alerts.rules import Message
from allranks_collector.escapes import shown

DEADLINE_S = 10.0
_LOOK_S = 0.05
_KEPT_BYTES = 4096
_MAX_PROBLEM_CHARS = 300
_KINDS = {"ERROR": "failure", "WARN": "warning"}
# With this exit code `deliver` says that trying again would change nothing.
FINAL_CODE = 78


@dataclass(frozen=True)
class Answer:
    """What a target says.

    Attributes:
        problem: why it has not taken the message; empty where it has.
        is_final: it will not take it later either.
    """

    problem: str = ""
    is_final: bool = False


@dataclass(frozen=True)
class Target:
    """One place that alerts go to.

    Attributes:
        name: without anything secret in it.
        command: its program and arguments; no shell sees them.
        payload: what it gets on stdin.
        final_code: the exit code by which it says that it will never take this message.
    """

    name: str
    command: tuple[str, ...]
    payload: Callable[[Message], bytes]
    final_code: int | None = None


def targets_of(urls: Sequence[str], command: Sequence[str]) -> tuple[Target, ...]:
    """The targets that the settings name. An address is named by its scheme: the rest of it may be secret."""
    found: list[Target] = []
    for number, url in enumerate(urls, 1):
        name = f"{url.partition(':')[0].lower()} ({number})"
        program = (sys.executable, "-m", "allranks_collector.alerts.deliver")
        found.append(Target(name, program, _for_service(url), FINAL_CODE))
    if command:
        found.append(Target("command", tuple(command), _for_command))
    return tuple(found)


def _for_service(url: str) -> Callable[[Message], bytes]:
    def payload(message: Message) -> bytes:
        kind = _KINDS.get(message.level, "info")
        return json.dumps({"url": url, "title": message.title, "body": message.text, "type": kind}).encode()

    return payload


def _for_command(message: Message) -> bytes:
    told = {
        "run": message.run_id,
        "rule": message.rule,
        "level": message.level,
        "rank": message.rank,
        "title": message.title,
        "text": message.text,
    }
    return json.dumps(told).encode() + b"\n"


def deliver(
    target: Target, message: Message, deadline_s: float = DEADLINE_S, is_given_up: Callable[[], bool] = lambda: False
) -> Answer:
    """Sends a message and waits for the answer, for `deadline_s` at most.

    Called in a worker thread. Where `is_given_up` says so, it ends at once.
    """
    with tempfile.TemporaryFile() as stdin:
        stdin.write(target.payload(message))
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                target.command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return Answer(f"it cannot be started: {error.strerror}", is_final=True)
    assert process.stdout is not None
    # Closed after the kill: who prints into a closed pipe dies of that, and leaves what it has started behind.
    with process.stdout as stdout:
        try:
            is_done, said = _await(process, stdout, time.monotonic() + deadline_s, is_given_up)
        finally:
            # It may have ended since; but until it is waited for, the number of its group is nobody else's.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if not is_done:
        return Answer(f"no answer within {deadline_s:g} s")
    if code == 0:
        return Answer()
    lines = said.decode("utf-8", "replace").strip().splitlines()
    how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
    problem = shown(lines[-1], colours=False)[:_MAX_PROBLEM_CHARS] if lines else how
    return Answer(problem, is_final=code == target.final_code)


def _await(
    process: subprocess.Popen[bytes], stdout: IO[bytes], deadline: float, is_given_up: Callable[[], bool]
) -> tuple[bool, bytes]:
    """Whether it has ended by then, and the end of what it printed; what it started may hold the pipe longer."""
    said = b""
    with selectors.DefaultSelector() as selector:
        os.set_blocking(stdout.fileno(), False)
        selector.register(stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and not is_given_up():
            has_ended = process.poll() is not None
            has_more = True
            if selector.select(0.0 if has_ended else _LOOK_S):
                chunk = os.read(stdout.fileno(), 65_536)
                said = (said + chunk)[-_KEPT_BYTES:]
                has_more = bool(chunk)
            elif has_ended:
                return True, said
            if not has_more:
                if has_ended:
                    return True, said
                time.sleep(_LOOK_S)
    return False, said
