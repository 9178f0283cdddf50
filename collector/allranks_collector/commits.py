"""What a commit is given beside batches, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from allranks_bus.wire import Ack, Refused
from allranks_collector.books import WriterBook


@dataclass(frozen=True)
class StateNote:
    """A state to store with the next commit."""

    writer: int
    run: int
    since_ns: int
    state: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class EventNote:
    """An event that the collector itself has seen, of a writer or a run, to store with the next commit."""

    writer: int | None
    run: int
    time_ns: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class ClockNote:
    """How far the collector's clock is ahead of a writer's, to store with the next commit."""

    writer: int
    offset_ns: int


Note = StateNote | EventNote | ClockNote


@dataclass(frozen=True)
class BadValue:
    """The first value of a series that is not finite."""

    book: WriterBook
    key: str
    value: float
    step: int
    time_ns: int


@dataclass
class Committed:
    """What a commit did.

    Attributes:
        answers: to send to each writer.
        opened, closed: writers; the closed ones with the map of their CLOSE record.
        touched: the runs that something came for, by id, with the newest step among it.
        steps: the newest step of each writer, by number, that something came from.
        printed: the runs, by id, of which lines came.
        alerts: what programs want people told: writer, time, title, text and level.
        bad_values: of each series only the first that is not finite.
        answered: the writers, by number, that told their stacks, with the token of who asked.
    """

    answers: dict[bytes, Ack | Refused] = field(default_factory=dict[bytes, "Ack | Refused"])
    opened: list[WriterBook] = field(default_factory=list[WriterBook])
    closed: list[tuple[WriterBook, dict[str, Any]]] = field(default_factory=list["tuple[WriterBook, dict[str, Any]]"])
    touched: dict[str, int] = field(default_factory=dict[str, int])
    steps: dict[int, int] = field(default_factory=dict[int, int])
    printed: set[str] = field(default_factory=set[str])
    alerts: list[tuple[WriterBook, int, dict[str, str]]] = field(
        default_factory=list["tuple[WriterBook, int, dict[str, str]]"]
    )
    bad_values: list[BadValue] = field(default_factory=list[BadValue])
    answered: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    events: int = 0
    points: int = 0

    def add(self, other: Committed) -> None:
        """Takes in what another commit did after this one."""
        self.answers |= other.answers
        self.opened += other.opened
        self.closed += other.closed
        self.touched |= other.touched
        self.steps |= other.steps
        self.printed |= other.printed
        self.alerts += other.alerts
        self.bad_values += other.bad_values
        self.answered += other.answered
        self.events += other.events
        self.points += other.points
