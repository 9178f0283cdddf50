"""What an outbox's lines say: what is wanted of the shipping process, and what it has done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from allranks_bus.files.outbox import SENT, TOLD, WANTED, Lines, append_line
from allranks_bus.files.source import State

# (path, name): one file may be stored under several names.
Key = tuple[str, str]


class Policy(str, Enum):
    """When a saved file is sent."""

    LIVE = "live"
    """Now, and whenever it has changed."""
    NOW = "now"
    """Once."""
    END = "end"
    """When the process that saved it finishes, or ends."""


@dataclass(frozen=True)
class User:
    """A training process that uses the outbox."""

    writer: str
    rank: int
    launch: str


@dataclass(frozen=True)
class Save:
    """What a training process wants saved: an absolute pattern, and the folder that names begin in."""

    pattern: str
    base: str
    policy: Policy
    user: User


@dataclass(frozen=True)
class Flush:
    """The training process `pid` ends its part, and wants to know when all is stored."""

    token: str
    writer: str
    pid: int


@dataclass(frozen=True)
class Flushed:
    """All that there was at a flush has been dealt with; `left` files of it are not stored."""

    token: str
    left: int


@dataclass(frozen=True)
class Problem:
    """A file that is not stored, and why; `writer` is to tell its user."""

    writer: str
    text: str


def want(directory: Path, wish: User | Save | Flush) -> None:
    """Notes a wish in the outbox.

    Raises:
        OSError: it cannot be noted.
    """
    append_line(directory / WANTED, {type(wish).__name__.lower(): asdict(wish)})


class Wishes:
    """All that is wanted of the shipping process, as it comes.

    Attributes:
        users: in the order in which they came.
        saves: and how often each was asked for.
    """

    def __init__(self, directory: Path) -> None:
        self.users: list[User] = []
        self.saves: dict[Save, int] = {}
        self._lines = Lines(directory / WANTED)

    def read(self) -> list[Flush]:
        """Takes in what has come; the flushes of that."""
        flushes: list[Flush] = []
        for line in self._lines.read():
            with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError):
                if "user" in line:
                    self.users.append(User(**line["user"]))
                elif "save" in line:
                    told = line["save"]
                    save = Save(told["pattern"], told["base"], Policy(told["policy"]), User(**told["user"]))
                    self.saves[save] = self.saves.get(save, 0) + 1
                elif "flush" in line:
                    flushes.append(Flush(**line["flush"]))
        return flushes


class Ledger:
    """What the shipping process has done, in memory and on disk: the next one goes on from there.

    What cannot be written down is only forgotten with this process: the collector knows what it has.
    """

    def __init__(self, directory: Path) -> None:
        self._sent, self._told = directory / SENT, directory / TOLD
        self._settled: dict[Key, State] = {}
        self._flushed: set[str] = set()
        self._problems: set[Problem] = set()
        for line in Lines(self._sent).read():
            with contextlib.suppress(LookupError, TypeError):
                self._settled[line["path"], line["name"]] = State(*line["state"])
        for news in News(directory).read():
            if isinstance(news, Flushed):
                self._flushed.add(news.token)
            else:
                self._problems.add(news)

    def is_settled(self, key: Key, state: State, *, by_inode: bool) -> bool:
        """True where this state of a file is stored, or will never be.

        Args:
            by_inode: False where a file may get another inode without having changed.
        """
        settled = self._settled.get(key)
        return settled is not None and (settled if by_inode else settled._replace(inode=state.inode)) == state

    def was_settled(self, key: Key) -> bool:
        """True where any state of a file is."""
        return key in self._settled

    def is_flushed(self, token: str) -> bool:
        """True where this flush is done."""
        return token in self._flushed

    def settle(self, key: Key, state: State, digest: str) -> None:
        """Notes that a file is stored, or with no digest, that it never will be."""
        path, name = key
        self._settled[key] = state
        _note(self._sent, {"path": path, "name": name, "state": list(state), "digest": digest})

    def flushed(self, flush: Flushed) -> None:
        """Notes that a flush is done."""
        self._flushed.add(flush.token)
        _note(self._told, {"flushed": asdict(flush)})

    def tell(self, problem: Problem) -> bool:
        """Notes a problem, for the user; False where it has been noted before."""
        if problem in self._problems:
            return False
        self._problems.add(problem)
        _note(self._told, {"problem": asdict(problem)})
        return True


def _note(path: Path, line: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        append_line(path, line)


class News:
    """What the shipping process has to say to the training processes, as it comes."""

    def __init__(self, directory: Path) -> None:
        self._lines = Lines(directory / TOLD)

    def read(self) -> list[Flushed | Problem]:
        """What has come since the last time."""
        return list(_news(self._lines.read()))


def _news(lines: Iterable[Mapping[str, Any]]) -> Iterator[Flushed | Problem]:
    for line in lines:
        with contextlib.suppress(LookupError, TypeError):
            if "flushed" in line:
                yield Flushed(**line["flushed"])
            elif "problem" in line:
                yield Problem(**line["problem"])
