"""Artifacts: files with a name. They are saved with the run that logs them; there are no versions of them."""

# ruff: noqa: ARG002  (wandb's arguments that mean nothing here)

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

from allranks.compat.wandb._left_out import say_left_out
from allranks.compat.wandb._table import FUNCTIONS, Fate, names_of
from allranks.compat.wandb.errors import UnsupportedError

_REFUSED = names_of(FUNCTIONS, Fate.REFUSED)


class Artifact:
    """Files that belong together.

    Attributes:
        name, type, description, metadata: as given; they are not stored.
        paths: the files that were added.
    """

    def __init__(
        self,
        name: str,
        type: str = "unspecified",  # noqa: A002
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self.name = name
        self.type = type
        self.description = description
        self.metadata = dict(metadata or {})
        self.aliases: list[str] = []
        self.version = "v0"
        self.paths: list[Path] = []

    def add_file(self, local_path: str | os.PathLike[str], name: str | None = None, **_: Any) -> None:
        """Adds a file, under its own name."""
        self.paths.append(Path(local_path))

    def add_dir(self, local_path: str | os.PathLike[str], name: str | None = None, **_: Any) -> None:
        """Adds all files of a folder."""
        self.paths.append(Path(local_path))

    def add(self, obj: Any, name: str, **_: Any) -> Any:
        """Objects are left out."""
        say_left_out("Artifact.add", "an artifact holds files only")
        return obj

    __setitem__ = add

    def add_reference(self, uri: Any, *_: Any, **__: Any) -> list[Any]:
        """References are left out."""
        say_left_out("Artifact.add_reference", "an artifact holds files only")
        return []

    @contextlib.contextmanager
    def new_file(self, name: str, mode: str = "x", encoding: str | None = None) -> Generator[IO[Any]]:
        """A new file of the artifact: in the run's folder, or in a folder for it alone where there is no run yet."""
        path = _new_folder(self.name) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode, encoding=encoding) as file:
            yield file
        self.paths.append(path)

    def wait(self, timeout: float | None = None) -> Artifact:
        """Itself: there is nothing to wait for."""
        return self

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise UnsupportedError(f"wandb.Artifact: {_REFUSED['use_artifact']}")

    download = checkout = get_path = get_entry = get = file = files = _refuse


def _new_folder(name: str) -> Path:
    from allranks.compat.wandb import _current

    run = _current.current()
    if run is None:
        return Path(tempfile.mkdtemp(prefix="allranks-artifact-"))
    return Path(run.dir) / "artifacts" / name.replace("/", "-")
