"""What a rank's last lines say of its end, where nobody saw its exit status, or that tells little. Pure.

A launcher reaps its ranks at once, and on kernels before 6.15 their exit status is gone with that; an exit code 1 and
a SIGABRT are what a cause and its followers end with alike. Their last words tell them apart: a crash or a lack of
memory is this rank's own, a connection that its peer closed is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Of the end of a console so much is looked at: the words of an end come with it, and a native stack below them.
SPAN_NS = 30 * 10**9
LINES = 60
_CHARS = 2_000

# fmt: off
# What each row's words are evidence of, by the name of `verdict`'s kind; the first row that any line matches counts.
# A watchdog that waits for another rank ends its own by an abort, so what it says stands before what the abort says.
TABLE: tuple[tuple[str, str], ...] = (
    ("collective", r"[Ww]atchdog caught collective|collective operation timeout|[Ww]atchdog thread terminated"),
    ("collective", r"Timeout at NCCL work|NCCL operations have failed or timed out|taking the entire process down"),
    ("device-oom", r"CUDA (error: )?out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory"),
    ("oom", r"oom[-_]kill|^Killed$|Out of memory: Killed|bad_alloc|^MemoryError\b|DefaultCPUAllocator: can't alloc"),
    ("oom", r"Cannot allocate memory"),
    ("crash", r"Fatal Python error: (Segmentation|Bus|Illegal|Floating)|^Segmentation fault|Signal: Segmentation"),
    ("crash", r"^(Bus error|Illegal instruction|Floating point exception)\b|double free or corruption"),
    ("crash", r"(malloc|free|realloc)\(\): |stack smashing detected|corrupted (size|double-linked)"),
    ("crash", r"CUDA error: (an illegal|device-side assert|misaligned|unspecified launch)|Assertion .{1,500}failed"),
    ("disk-full", r"^OSError: .*(No space left on device|Disk quota exceeded)"),
    ("connection", r"Connection (closed|reset|refused|aborted) by (peer|remote)|ncclRemoteError|Broken pipe"),
    ("terminated", r"SignalException|got signal: (15|2|1)\b|^Terminated\b|DUE TO (PREEMPTION|TIME LIMIT)"),
    ("abort", r"terminate called (after|without)|Fatal Python error|^Aborted\b"),
)
# fmt: on
_PATTERNS = tuple((kind, re.compile(words)) for kind, words in TABLE)
# What launchers and torch's own hook put before each line of a rank.
_PREFIX = re.compile(r"^(\[(rank|default)?\d+\]:\s?)+")
_SOURCE = re.compile(r"(^|^[\w.]+: )\[[^\[\]]*\.(?:cc|cpp|cu|h|hpp):\d+\][\s.]*")
_TRACEBACK = "Traceback (most recent call last):"
_RAISED = re.compile(r"^((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (.*))?$")


@dataclass(frozen=True)
class Words:
    """What the last lines say.

    Attributes:
        kind: the name of a kind of end; `exception` where it is one that Python raised, whatever it means.
        line: the line that says so.
        time_ns: when it was printed, in the clock of the lines given.
        type, message: of the exception.
    """

    kind: str
    line: str
    time_ns: int
    type: str = ""
    message: str = ""


def plain(text: str) -> str:
    """A line without what launchers put before it."""
    return _PREFIX.sub("", text)


def without_source(text: str) -> str:
    """An error without where in a library's sources it arose, which stands before what it says: gloo's, c10d's."""
    return _SOURCE.sub(r"\1", text, count=1)


def read(lines: Iterable[tuple[int, str]]) -> Words | None:
    """What the end of a console says of how its rank ended; None where it says nothing.

    Args:
        lines: (time in ns, text without colours) in their order.
    """
    told = [(time_ns, plain(text[:_CHARS])) for time_ns, text in lines][-LINES:]
    if not told:
        return None
    told = [(time_ns, text) for time_ns, text in told if time_ns >= told[-1][0] - SPAN_NS]
    for kind, pattern in _PATTERNS:
        for time_ns, text in reversed(told):
            if pattern.search(text):
                return Words(kind, text.strip(), time_ns)
    return _raised(told)


def _raised(told: Sequence[tuple[int, str]]) -> Words | None:
    """The last line of the last traceback."""
    for at in range(len(told) - 1, -1, -1):
        if told[at][1].rstrip().endswith(_TRACEBACK):
            for time_ns, text in told[at + 1 :]:
                if not text.startswith((" ", "\t")) and text.strip():
                    found = _RAISED.match(text.strip())
                    if found is None:
                        return None
                    return Words("exception", text.strip(), time_ns, found[1], found[2] or "")
            return None
    return None
