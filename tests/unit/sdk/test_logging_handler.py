"""Records of `logging` as objects of a run: what is kept, when, and that nothing comes back to the program."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.spools import Event, logged, of_kind, spooled

import allranks
from allranks._log import RankLog
from allranks.integrations.logging import KEY, MAX_EXCEPTION_CHARS, MAX_MESSAGE_CHARS, AllranksHandler
from allranks_bus.events import Kind


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, which says nothing to others."""
    logger = logging.getLogger("tests.train")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def kept(home: Path) -> list[dict[str, Any]]:
    """The bodies of all records that are kept."""
    return [fields[KEY] for _, fields in logged(spooled(home / "spool")) if KEY in fields]


def record_events(home: Path) -> list[Event]:
    return [event for event in of_kind(spooled(home / "spool"), Kind.LOG) if KEY in event[3]]


def test_a_record_is_kept_with_its_parts_and_its_time(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())
    record = logger.makeRecord("tests.train", logging.WARNING, "/train.py", 12, "epoch %d", (3,), None)
    logger.handle(record)
    (event,) = record_events(sdk_home)
    assert event[1] == int(record.created * 1e9)
    assert event[3][KEY] == {
        "_type": "log",
        "logger": "tests.train",
        "level": "WARNING",
        "message": "epoch 3",
        "at": "/train.py:12",
    }


def test_an_exception_and_a_thread_are_parts_of_their_own(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())

    def fail() -> None:
        try:
            raise ValueError("no such file")
        except ValueError:
            logger.exception("gone")

    thread = threading.Thread(target=fail, name="loader")
    thread.start()
    thread.join()
    (body,) = kept(sdk_home)
    assert (body["message"], body["level"], body["thread"]) == ("gone", "ERROR", "loader")
    lines = body["exception"].splitlines()
    assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "ValueError: no such file")


def test_a_formatter_makes_the_message_alone(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    handler = AllranksHandler()
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    logger.addHandler(handler)
    logger.error("x", exc_info=ValueError("y"))
    (body,) = kept(sdk_home)
    assert (body["message"], body["exception"]) == ("[ERROR] x", "ValueError: y")


def test_records_stand_at_the_newest_step_and_do_not_move_it(sdk_home: Path, logger: logging.Logger) -> None:
    run = allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())
    logger.info("before")
    for value in range(3):
        run.log({"loss": value})
        logger.info("step")
    steps = [(step, KEY in fields) for step, fields in logged(spooled(sdk_home / "spool"))]
    assert steps == [(-1, True), (0, False), (0, True), (1, False), (1, True), (2, False), (2, True)]


def test_nothing_is_kept_before_init_nor_after_finish_and_nothing_is_said(
    sdk_home: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(AllranksHandler())
    logger.info("early")
    run = allranks.init(mode="offline")
    logger.info("while")
    run.finish()
    capsys.readouterr()
    logger.info("late")
    assert capsys.readouterr().err == ""
    assert [body["message"] for body in kept(sdk_home)] == ["while"]


def test_a_rank_that_leaves_init_to_another_joins_by_its_first_record(
    sdk_home: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("ALLRANKS_RUN_ID", "r"), ("ALLRANKS_MODE", "offline")):
        monkeypatch.setenv(name, value)
    logger.addHandler(AllranksHandler())
    logger.info("here")
    (opening,) = of_kind(spooled(sdk_home / "spool"), Kind.OPEN)
    assert (opening[2]["run"], opening[2]["rank"]) == ("r", 1)
    assert [body["message"] for body in kept(sdk_home)] == ["here"]


def test_long_records_are_cut_where_they_say_least(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())
    try:
        raise ValueError("x" * 100_000 + " at the end")
    except ValueError:
        logger.exception("m" * (MAX_MESSAGE_CHARS + 7))
    (body,) = kept(sdk_home)
    assert body["message"] == "m" * MAX_MESSAGE_CHARS + " … (7 more letters)"
    assert len(body["exception"]) == MAX_EXCEPTION_CHARS
    assert body["exception"].endswith("x at the end")


def test_a_record_that_cannot_be_told_goes_to_handle_error(
    sdk_home: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    allranks.init(mode="offline")
    handler = AllranksHandler()
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", failed.append)
    for message, arguments in (("%d", ("not a number",)), ("next", ())):
        handler.handle(logger.makeRecord("a", logging.INFO, "/a.py", 1, message, arguments, None))
    assert [record.msg for record in failed] == ["%d"]
    assert [body["message"] for body in kept(sdk_home)] == ["next"]


def test_a_warning_of_ours_that_comes_back_through_logging_ends_there(
    sdk_home: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ToLogger(io.StringIO):
        def write(self, text: str) -> int:
            logger.warning("stderr: %s", text)
            return len(text)

    def warn_and_refuse(log: RankLog, payload: bytes) -> bool:
        sys.stderr.write("the disk is full")
        return False

    allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())
    monkeypatch.setattr(sys, "stderr", ToLogger())
    monkeypatch.setattr(RankLog, "append", warn_and_refuse)
    logger.info("once")  # recursion without end, if the handler took the second one


def test_it_works_behind_a_queue(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, AllranksHandler())
    listener.start()
    logger.info("one %s", "two")
    listener.stop()
    assert [body["message"] for body in kept(sdk_home)] == ["one two"]


def test_a_configuration_may_name_it(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    handlers = {"run": {"class": "allranks.integrations.logging.AllranksHandler", "level": "WARNING"}}
    loggers = {logger.name: {"handlers": ["run"]}}
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "handlers": handlers, "loggers": loggers}
    )
    logger.info("below its level")
    logger.warning("at its level")
    assert [body["message"] for body in kept(sdk_home)] == ["at its level"]


def test_a_forked_child_keeps_records_under_a_writer_of_its_own(sdk_home: Path, logger: logging.Logger) -> None:
    allranks.init(mode="offline")
    logger.addHandler(AllranksHandler())
    logger.info("parent")
    pid = os.fork()
    if pid == 0:
        logger.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert sorted(body["message"] for body in kept(sdk_home)) == ["child", "parent"]
    roles = sorted(opening[2]["role"] for opening in of_kind(spooled(sdk_home / "spool"), Kind.OPEN))
    assert roles == ["child", "rank"]
