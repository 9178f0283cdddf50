"""What the demo can be told, read alike by the launcher (which passes it on) and by each rank."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_SECONDS = 15.0
NEEDS = {"numpy": "numpy", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Place:
    """A rank's place in its world, and where the ranks meet."""

    rank: int
    world_size: int
    host: str
    port: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Place:
        """Read it as torchrun writes it; a process that nobody launched is a world of one.

        Under torchrun itself MASTER_PORT is taken by torchrun's own store, so the ranks meet on the next port.

        Raises:
            ValueError: a variable is no number, or the rank is outside of the world.
        """
        rank, world_size = int(env.get("RANK", "0")), int(env.get("WORLD_SIZE", "1"))
        if not 0 <= rank < world_size:
            raise ValueError(f"RANK must be 0 to WORLD_SIZE - 1, not {rank} of {world_size}")
        port = int(env.get("MASTER_PORT", "0"))
        if env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            port += 1
        return cls(rank, world_size, env.get("MASTER_ADDR", "127.0.0.1"), port)


@dataclass(frozen=True)
class Options:
    """One training job. `steps` and `seconds` both None never happens: seconds is the default."""

    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    batch: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    seed: int = 0
    name: str = "digits"
    timeout_s: float = 30.0
    kill_rank: int | None = None
    stall_rank: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of `Options`."""
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=_positive, help=f"train for so long (default {DEFAULT_SECONDS:g})")
    limit.add_argument("--steps", type=_count, help="train for so many steps")
    limit.add_argument("--epochs", type=_positive, help="train for so many passes over the data")
    parser.add_argument("--batch", type=_count, default=Options.batch, help="samples per rank and step")
    parser.add_argument("--lr", type=_positive, default=Options.lr, help="highest learning rate")
    parser.add_argument("--momentum", type=float, default=Options.momentum)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--name", default=Options.name, help="name of the run")
    parser.add_argument(
        "--timeout",
        dest="timeout_s",
        type=_positive,
        default=Options.timeout_s,
        metavar="SECONDS",
        help="longest wait of a rank for the others, after which the job fails",
    )
    trouble = parser.add_mutually_exclusive_group()
    trouble.add_argument("--kill-rank", type=int, metavar="R", help="rank R kills itself after a third")
    trouble.add_argument("--stall-rank", type=int, metavar="R", help="rank R stands still after a third")


def parse(argv: Sequence[str], prog: str) -> Options:
    """The options of one rank."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    add_arguments(parser)
    return Options(**vars(parser.parse_args(argv)))


def missing_packages() -> str | None:
    """One line that says what to install; None when all is there."""
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    return f'the demo needs {" and ".join(missing)}: pip install "allranks[demo]"'


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, not {text}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text}")
    return number
