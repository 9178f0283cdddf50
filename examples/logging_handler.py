"""What a program says through `logging` is kept with its run: by level, logger, step and rank, with tracebacks."""

from __future__ import annotations

import logging
import logging.config
import random

import allranks

# As in a configuration file: the handler is named by its class, beside those that print.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
        "run": {"class": "allranks.integrations.logging.AllranksHandler", "level": "INFO"},
    },
    "root": {"handlers": ["console", "run"], "level": "INFO"},
}
log = logging.getLogger("train")


def read(shard: int) -> float:
    if random.random() < 0.2:
        raise OSError(f"shard {shard} cannot be read")
    return random.random()


def main() -> None:
    logging.config.dictConfig(LOGGING)
    run = allranks.init(project="logging", config={"shards": 20})
    for shard in range(run.config.shards):
        try:
            run.log({"loss": read(shard)})
        except OSError:
            log.exception("skipped")
    log.info("read all shards")
    run.finish()
    print(f'see {run.url or "allranks runs"}; or in Python: allranks.Client().objects("{run.id}", "logs")')


if __name__ == "__main__":
    main()
