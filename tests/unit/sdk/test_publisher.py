"""The publisher's thread: whatever goes wrong beside it, it goes on shipping."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from tests.support.spools import of_kind, spooled
from tests.support.waiting import wait_until

import allranks
from allranks import _publisher
from allranks._loading import load
from allranks_bus.events import Kind


@contextmanager
def _collector() -> Generator[tuple[str, Callable[[], bool]]]:
    """The URL of a socket that takes messages and answers none, and whether one has come there."""
    # Not in pytest's folders: a socket's path has at most 107 bytes.
    with (
        tempfile.TemporaryDirectory() as folder,
        zmq.Context() as context,
        context.socket(zmq.PULL) as data,
    ):
        data.bind(f"ipc://{folder}/data")
        yield f"ipc://{folder}/data", lambda: bool(data.poll(0))


def _failing(name: str, times: int) -> Callable[[str], Any]:
    """`load` that cannot import `name` so often."""
    left = times

    def fails(asked: str) -> Any:
        nonlocal left
        if asked == name and left:
            left -= 1
            raise OSError(24, "Too many open files")
        return load(asked)

    return fails


@pytest.mark.usefixtures("sdk_home")
def test_an_import_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_publisher, "load", _failing("allranks_bus.courier", 2))
    monkeypatch.setattr(_publisher, "_TRY_AGAIN_S", 0.05)
    with _collector() as (url, has_heard):
        allranks.init(project="p", url=url).log({"loss": 1.0})
        wait_until(has_heard, "the event has come")
        allranks.finish(timeout=0)
    assert "they are kept in" in capsys.readouterr().err


def test_figures_of_the_system_that_cannot_be_read_hold_nothing_up(
    sdk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_publisher, "load", _failing("allranks.system", 2))
    monkeypatch.setattr(_publisher, "SAMPLE_S", 0.05)
    allranks.init(project="p", mode="offline")
    wait_until(lambda: bool(of_kind(spooled(sdk_home / "spool"), Kind.SYSTEM)), "figures of the system are kept")
