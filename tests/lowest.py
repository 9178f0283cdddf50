"""Prints pip constraints that pin the packages' own dependencies to the oldest versions that they admit.

python tests/lowest.py > constraints.txt && pip install -c constraints.txt -e '.[dev]'
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

_BOUND = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)>=(?P<version>[0-9.]+)")
_DATA_FRAMES = ("pandas>", "polars>", "pyarrow>")


def constraints(pyproject: str) -> list[str]:
    """`name==version` for each dependency of the SDK and of the collector.

    Raises:
        ValueError: one has no lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    # An Arrow of today wants a numpy of today, so what our tables go into is as old as the rest.
    frames = [name for name in extras["dev"] if name.startswith(_DATA_FRAMES)]
    pins: list[str] = []
    for requirement in (*project["dependencies"], *extras["collector"], *frames):
        bound = _BOUND.match(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} has no lower bound: expected name>=version")
        pins.append(f"{bound['name']}=={bound['version']}")
    return pins


if __name__ == "__main__":
    print("\n".join(constraints((Path(__file__).parent.parent / "pyproject.toml").read_text())))
