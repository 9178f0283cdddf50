"""Sixteen threads that log into one run; `init` twice, `log()` and `finish()` after the end, and a run after it."""

import threading

import allranks

THREADS, EVENTS = 16, 2_000


def log(thread: int) -> None:
    for event in range(EVENTS):
        run.log({f"thread-{thread}": event}, event)


run = allranks.init(project="neighbours", id="first", config={"lr": 1})
assert allranks.init(project="another", config={"lr": 2}) is run
threads = [threading.Thread(target=log, args=(thread,)) for thread in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
allranks.finish()
run.log({"late": 1.0})
allranks.log({"late": 1.0})
run.finish()
allranks.finish()
again = allranks.init(project="neighbours", id="second")
assert again is not run
allranks.log({"i": 0.0}, 0)
run.log({"late": 1.0})
