"""A program that says everything through `logging`: what a reader finds of it in a collector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support import scenario
from tests.support.collector import CollectorProcess

from allranks import Client

SCRIPT = """
import logging, logging.config, logging.handlers, os, queue, threading

import allranks

logging.config.dictConfig({
    "version": 1,
    "formatters": {"short": {"format": "%(name)s | %(message)s"}},
    "handlers": {
        "run": {"class": "allranks.integrations.logging.AllranksHandler", "level": "INFO", "formatter": "short"},
    },
    "root": {"handlers": ["run"], "level": "DEBUG"},
})
log = logging.getLogger("train")

run = allranks.init(project="logging")
log.info("starts with lr %s", 0.1)
for step in range(3):
    run.log({"loss": 1 / (step + 1)})
    log.debug("a detail")
    log.info("step %d", step)


def fail(number):
    try:
        raise ValueError(f"shard {number} is gone")
    except ValueError:
        log.exception("cannot load")


threads = [threading.Thread(target=fail, args=(number,), name=f"loader-{number}") for number in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        log.warning("child %d", number)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)

records = queue.Queue()
behind = logging.getLogger("behind")
behind.propagate = False
behind.addHandler(logging.handlers.QueueHandler(records))
listener = logging.handlers.QueueListener(records, *logging.getLogger().handlers)
listener.start()
behind.error("through a queue")
listener.stop()
run.finish()
log.info("after the end")
"""


def test_records_are_found_by_message_level_step_and_process(tmp_path: Path) -> None:
    with CollectorProcess(tmp_path / "home") as collector:
        scenario.run(collector.home, SCRIPT, env={"ALLRANKS_URL": collector.url}).must_be_well()
        collector.await_drained()
        client = Client(collector.http)
        (run,) = client.runs("logging")
        table = client.objects(run["id"], key="logs")
        last_step = client.ranks(run["id"])["last_step"]
    assert set(table["type"]) == {"log"}
    bodies: list[dict[str, Any]] = [json.loads(value) for value in table["value"]]
    said = sorted((body["level"], body["message"], body.get("thread")) for body in bodies)
    assert said == [
        ("ERROR", "behind | through a queue", None),
        ("ERROR", "train | cannot load", "loader-0"),
        ("ERROR", "train | cannot load", "loader-1"),
        *(("INFO", f"train | {text}", None) for text in ("starts with lr 0.1", "step 0", "step 1", "step 2")),
        *(("WARNING", f"train | child {number}", None) for number in range(3)),
    ]
    steps = {body["message"]: step for body, step in zip(bodies, table["step"], strict=True)}
    assert [steps[f"train | step {number}"] for number in range(3)] == [0, 1, 2]
    reasons = {body["exception"].splitlines()[-1] for body in bodies if "exception" in body}
    assert reasons == {f"ValueError: shard {number} is gone" for number in range(2)}
    assert last_step == [2]
