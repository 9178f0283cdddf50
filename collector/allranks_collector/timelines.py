"""A rank's states over time, as spans that follow each other without a gap. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# So many spans of a rank are kept apart: about as many as can be told from each other in a row of a screen.
MAX_SPANS = 64


@dataclass(frozen=True)
class Span:
    """A state, from one moment up to another, in ns of the collector's clock."""

    state: str
    from_ns: int
    until_ns: int

    @property
    def length_ns(self) -> int:
        return self.until_ns - self.from_ns


def spans_of(
    changes: Iterable[tuple[int, str]], from_ns: int, until_ns: int, *, before: str, most: int = MAX_SPANS
) -> list[Span]:
    """The spans of one rank from `from_ns` up to `until_ns`, in order, each beginning where the one before it ends.

    Args:
        changes: when which state began, in the order in which the collector learned of them. What is learned later
            is believed: a rank that closed at 10 s was not found dead at 11 s.
        before: the state until the first of the changes.
        most: of more spans the shortest become part of the one before them; never the last, which is what it is now.
    """
    begun: list[tuple[int, str]] = []
    for at_ns, state in changes:
        while begun and begun[-1][0] >= at_ns:
            begun.pop()
        begun.append((at_ns, state))
    spans: list[Span] = []
    for place, (at_ns, state) in enumerate([(from_ns, before), *begun]):
        end_ns = begun[place][0] if place < len(begun) else until_ns
        _append(spans, Span(state, max(at_ns, from_ns), min(end_ns, until_ns)))
    return _shortened(spans, most)


def _append(spans: list[Span], span: Span) -> None:
    if span.length_ns <= 0:
        return
    if spans and spans[-1].state == span.state:
        spans[-1] = Span(span.state, spans[-1].from_ns, span.until_ns)
    else:
        spans.append(span)


def _shortened(spans: list[Span], most: int) -> list[Span]:
    while len(spans) > most:
        # With a span between two alike, two go: half as many at a time never take too many.
        some = (len(spans) - most + 1) // 2
        shortest = set(sorted(range(1, len(spans) - 1), key=lambda place: spans[place].length_ns)[:some])
        kept: list[Span] = []
        for place, span in enumerate(spans):
            _append(kept, Span(kept[-1].state, span.from_ns, span.until_ns) if place in shortest else span)
        spans = kept
    return spans
