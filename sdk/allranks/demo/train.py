"""One rank of the demo: `python -m allranks.demo.train`, started by the demo's launcher or by torchrun."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

import allranks
from allranks.demo.options import Place, missing_packages, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one rank, and return the exit status. An error of the training is raised, as in any training."""
    options = parse(sys.argv[1:] if argv is None else argv, "python -m allranks.demo.train")
    missing = missing_packages()
    if missing:
        print(missing, file=sys.stderr)
        return 2
    place = Place.from_env(os.environ)
    run = allranks.init(
        project="demo",
        name=options.name,
        config={k: v for k, v in dataclasses.asdict(options).items() if v is not None},
    )

    # Only now: whoever reads the lines above sees what a training script needs, and it is not numpy.
    from allranks.demo.allreduce import join
    from allranks.demo.loop import train

    group = join(place.rank, place.world_size, place.host, place.port, options.timeout_s)
    outcome = train(options, place, group, run)
    group.close()
    if place.rank == 0:
        run.summary["test_accuracy_all"] = outcome.test_accuracy
        print(
            f"{outcome.steps} steps on {place.world_size} ranks, test accuracy {outcome.test_accuracy:.3f}, "
            f"weights {outcome.checksum:08x} on every rank"
        )
    run.finish()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
