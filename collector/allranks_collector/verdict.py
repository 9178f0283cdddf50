"""The verdict: which rank failed first, and who only followed. Pure, over the ranks of one attempt.

A training that loses a rank loses all of them, and the victims are louder than the cause: they raise, and it is just
gone. So two things decide, in this order: **what kind of end it was** (one that another's end brings about, such as a
connection that was closed by its peer or the launcher's SIGTERM, is no cause while another is found), and **when it
was**, in the collector's clock. Each end has a span of time in which it must have been; among ends that may have been
the first, the stronger evidence is believed.

A rank that is merely not heard is a case of its own: its node may be lost, which brings all others down, or it may
be cut off from the collector alone, and train on. So it is the cause where the others ended by what a lost peer
brings about, and none where another surely failed by itself.

And a training that hangs is ended by somebody, or by the time that a collective may take: nobody of those has begun
it. Where its ranks were asked before that, the one that stood elsewhere than the others has.

A rank that ends well too early (its data were fewer, it returned from its loop) brings the others down as well: where
nothing is known of them but that they have lost a peer, it is named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from allranks_collector.last_words import Words, without_source

SECOND_NS = 10**9


class Class(Enum):
    """What an end says of who brought it about."""

    OWN = "something in this rank"
    OPEN = "this rank or another"
    ECHO = "another rank, or who started them"


@dataclass(frozen=True)
class Kind:
    """One row of the table of evidence.

    Attributes:
        blame: among ends that may have been the first, the smallest is believed; among echoes, the odd one out.
        early_s, late_s: the end was within this span around the time that is known of it.
        grace_s: an echo comes from a cause that is known to be at most so much later than itself.
    """

    name: str
    class_: Class
    blame: int
    early_s: float = 0.0
    late_s: float = 0.0
    grace_s: float = 0.0


# An end that the collector sees itself is seen late, by as much as the collector is busy; a rank that closes tells
# its own time; a silent one was heard once a second. An exception is told when its rank has cleaned up after it,
# by which time the others may have told theirs.
_SEEN_S, _BEAT_S = 0.15, 1.5
OOM = Kind("oom", Class.OWN, 0, early_s=_SEEN_S)
CRASH = Kind("crash", Class.OWN, 1, early_s=_SEEN_S)
KILLED = Kind("killed", Class.OWN, 2, early_s=_SEEN_S)
DEVICE_OOM = Kind("device-oom", Class.OWN, 3)
DISK_FULL = Kind("disk-full", Class.OWN, 3)
WORKER = Kind("worker", Class.OWN, 3)
EXCEPTION = Kind("exception", Class.OWN, 3)
EXIT = Kind("exit", Class.OWN, 4, early_s=_SEEN_S)
ABORT = Kind("abort", Class.OPEN, 5, early_s=_SEEN_S)
SILENT = Kind("silent", Class.OPEN, 6, late_s=_BEAT_S)
GONE = Kind("gone", Class.OPEN, 7, early_s=_SEEN_S)
HUNG = Kind("hung", Class.OPEN, 7)
LEFT = Kind("left", Class.OPEN, 7)
CONNECTION = Kind("connection", Class.ECHO, 8, grace_s=5.0)
COLLECTIVE = Kind("collective", Class.ECHO, 8, grace_s=60.0)
TERMINATED = Kind("terminated", Class.ECHO, 8, early_s=_SEEN_S, grace_s=1.0)
KINDS = (
    *(OOM, CRASH, KILLED, DEVICE_OOM, DISK_FULL, WORKER, EXCEPTION, EXIT),
    *(ABORT, SILENT, GONE, HUNG, LEFT),
    *(CONNECTION, COLLECTIVE, TERMINATED),
)
_OF_A_LOST_PEER = frozenset({CONNECTION, COLLECTIVE})
# A launcher ends the others so soon after one has gone.
_LAUNCHER_NS = 60 * SECOND_NS
_BY_NAME = {kind.name: kind for kind in KINDS}
# Ends of a rank by itself, whoever is lost; a signal from elsewhere may be the launcher's, after a node was lost.
_BY_ITSELF = frozenset({OOM, CRASH, DEVICE_OOM, DISK_FULL, WORKER, EXCEPTION, EXIT})
# What tells little by itself: its rank's last words tell more.
_VAGUE = frozenset({EXIT, ABORT, GONE})

# fmt: off
# What ended a process by a signal; any other signal is like SIGKILL: somebody sent it.
_SIGNALS: Mapping[str, Kind] = {
    "SIGSEGV": CRASH, "SIGBUS": CRASH, "SIGILL": CRASH, "SIGFPE": CRASH, "SIGSYS": CRASH,
    "SIGABRT": ABORT,  # a library's own check, or NCCL's watchdog that waits for another
    "SIGTERM": TERMINATED, "SIGINT": TERMINATED, "SIGHUP": TERMINATED,
    # What schedulers announce the end by: of the time, of a share of it.
    "SIGUSR1": TERMINATED, "SIGUSR2": TERMINATED, "SIGXCPU": TERMINATED,
}
# By their numbers in exit codes beyond 128, as shells tell them.
_NUMBERS = {
    1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV",
    10: "SIGUSR1", 12: "SIGUSR2", 15: "SIGTERM", 24: "SIGXCPU", 31: "SIGSYS",
}
# What an exception's type, message and last frames say, in the words of Python, gloo, NCCL, c10d and torchrun.
_WORDS: tuple[tuple[Kind, str], ...] = (
    (DEVICE_OOM, r"CUDA (error: )?out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory"),
    (OOM, r"^MemoryError\b|DefaultCPUAllocator: can't alloc|cannot allocate memory|std::bad_alloc"),
    (DISK_FULL, r"No space left on device|Disk quota exceeded|unexpected pos \d+ vs \d+"),  # the last is torch.save's
    (TERMINATED, r"DataLoader worker [^\n]* is killed by signal: (Terminated|Interrupt|Hangup)"),
    (WORKER, r"DataLoader worker [^\n]*(is killed by signal|exited unexpectedly)"),
    (TERMINATED, r"SignalException|got signal: (15|2|1)\b|^KeyboardInterrupt"),
    (COLLECTIVE, r"watchdog caught collective|collective operation timeout|timeout at NCCL work"),
    (COLLECTIVE, r"NCCL operations have failed or timed out|socket timeout"),
    (COLLECTIVE, r"^([\w.]+\.)?Rendezvous(Timeout|Connection|Closed)Error"),
    (COLLECTIVE, r"timed out (waiting|after)[^\n]*(ms|seconds?|operation|recv|send)|wait timeout|monitoredBarrier"),
    (CONNECTION, r"connection (was )?(likely )?(closed|reset|refused|aborted|lost|timed out)|broken ?pipe|^EOFError"),
    (CONNECTION, r"^Connection(Reset|Refused|Aborted)Error|remote end (hung up|closed)|socket (has )?closed"),
    (CONNECTION, r"\bclosed (the|its|our) (connection|socket)|\bPeerError\b"),
    (CONNECTION, r"peer (has )?(closed|disconnected|gone|exited)|remote process (has )?(exited|terminated)"),
    (CONNECTION, r"ncclRemoteError|failed to recv|(recv|send)(Value|Bytes) failed|communicator was aborted"),
)
# fmt: on
_PATTERNS = tuple((kind, re.compile(words, re.IGNORECASE)) for kind, words in _WORDS)
# An exception that arose within a collective is one that the others brought about, whatever its words are.
_COLLECTIVE_FRAME = re.compile(r'File "[^"]*torch/distributed/(distributed_c10d|c10d_logger|rendezvous)\.py"')
# What came before the last exception of a traceback, where a library says something else about it: torch.save does.
_AFTER_FULL = re.compile(r"^\w*Error: .*(No space left on device|Disk quota exceeded).*$", re.MULTILINE)
# Of what a rank says so much is looked at.
_TYPE_CHARS, _MESSAGE_CHARS, _TRACE_CHARS = 200, 2_000, 4_000


@dataclass(frozen=True)
class RankFacts:
    """What is known of one rank of the attempt.

    Attributes:
        at_ns: when it ended, or was last heard where it is silent, in the collector's clock.
        doubt_ns: how wrong that may be, on top of what its kind of evidence has.
        early_ns: how much earlier it may have been: nobody looked on.
        oom_kills: how many the kernel has killed for want of memory where it ran, at about that time.
        reason: why it is in its state.
        is_held: what holds it is known to be in itself: a signal that stops it, a debugger, C code.
        is_odd: its stack is elsewhere than those of most others.
        is_lost: it is taken for dead because it was not heard for so long; `at_ns` is when it was last heard.
        words: what its last lines say of its end.
        hung_as: what was odd about it when the training stood still, such as where it stood; it has gone on no more.
        hung_ns: since when it stood still then.
    """

    rank: int
    state: str
    at_ns: int | None = None
    doubt_ns: int = 0
    early_ns: int = 0
    host: str | None = None
    pid: int | None = None
    local_rank: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    exception: Mapping[str, Any] | None = None
    last_step: int | None = None
    oom_kills: int = 0
    reason: str | None = None
    is_held: bool = False
    is_odd: bool = False
    is_lost: bool = False
    words: Words | None = None
    hung_as: str | None = None
    hung_ns: int = 0


@dataclass(frozen=True)
class Fate:
    """How a rank went: which kind of evidence, and in a few words what it was."""

    facts: RankFacts
    kind: Kind
    what: str

    @property
    def at_ns(self) -> int:
        return self.facts.at_ns or 0

    @property
    def likely_ns(self) -> int:
        """When it most likely was: of an end that nobody saw, when the rank was last known to live."""
        return self.at_ns - self.facts.early_ns

    @property
    def earliest_ns(self) -> int:
        """It was not before this."""
        return self.at_ns - round(self.kind.early_s * SECOND_NS) - self.facts.doubt_ns - self.facts.early_ns

    @property
    def latest_ns(self) -> int:
        """It was not after this."""
        return self.at_ns + round(self.kind.late_s * SECOND_NS) + self.facts.doubt_ns


@dataclass(frozen=True)
class Verdict:
    """What became of an attempt.

    Attributes:
        outcome: `failed`, `stopped` (they were told to end, several at once), `unreachable` (some are not heard, and
            nothing else has happened), `stalled`, `running`, `finished` or `expected`.
        first: the first failure, or the first that was stopped or is not heard; None where there is none.
        followers: those that ended badly after it, by time.
        stalled: those that stand still: first whatever is held by something in itself, then who is furthest behind,
            and of those who stands elsewhere than most.
    """

    outcome: str
    first: Fate | None = None
    followers: tuple[Fate, ...] = ()
    stalled: tuple[RankFacts, ...] = field(default=())


def judge(ranks: Iterable[RankFacts]) -> Verdict:
    """Who failed first, and what became of the others; the order of `ranks` tells nothing."""
    ranks = sorted(ranks, key=lambda facts: facts.rank)
    found = (fate_of(facts) for facts in ranks)
    fates = sorted((fate for fate in found if fate), key=lambda fate: (fate.likely_ns, fate.facts.rank))
    stalled = tuple(sorted((facts for facts in ranks if facts.state == "stalled"), key=_behind))
    first = _first(fates)
    if first is not None:
        followers = tuple(fate for fate in fates if fate is not first)
        outcome = "stopped" if _is_stopped(first, followers, len(ranks)) else "failed"
        if all(fate.kind is SILENT for fate in fates):
            outcome = "unreachable"
        hung = _hung(ranks)
        if hung is not None and first.kind is not SILENT and first.kind not in _BY_ITSELF:
            first = hung
            followers = tuple(fate for fate in fates if fate.facts.rank != hung.facts.rank)
        elif (left := _left(ranks, first, fates)) is not None:
            outcome, first, followers = "failed", left, tuple(fates)
        return Verdict(outcome, first, followers, stalled)
    states = {facts.state for facts in ranks}
    for state in ("running", "stalled", "expected", "finished"):
        if state in states and (state != "expected" or states == {"expected"}):
            return Verdict(state, stalled=stalled)
    return Verdict("finished" if "finished" in states else "expected", stalled=stalled)


def _hung(ranks: Iterable[RankFacts]) -> Fate | None:
    """Whom the others waited for; of several the one that stood still first."""
    found = min(
        (facts for facts in ranks if facts.hung_as), key=lambda facts: (facts.hung_ns, facts.rank), default=None
    )
    if found is None:
        return None
    return Fate(replace(found, at_ns=found.hung_ns, doubt_ns=0, early_ns=0), HUNG, f"it {found.hung_as}")


def _left(ranks: Iterable[RankFacts], first: Fate, fates: Iterable[Fate]) -> Fate | None:
    """Who had ended well before others lost it: the first to go, where nothing else is known of them.

    A launcher that sees it go may end the others before they have all lost it.
    """
    if first.kind not in _OF_A_LOST_PEER and not (
        first.kind is TERMINATED and any(fate.kind in _OF_A_LOST_PEER for fate in fates)
    ):
        return None
    since_ns = first.latest_ns - _LAUNCHER_NS if first.kind is TERMINATED else 0
    ended = (Fate(facts, LEFT, "") for facts in ranks if facts.state == "finished" and facts.at_ns is not None)
    left = sorted(
        (fate for fate in ended if since_ns <= fate.earliest_ns <= first.latest_ns),
        key=lambda fate: (fate.at_ns, fate.facts.rank),
    )
    if not left:
        return None
    others = f", as {len(left) - 1} more did," if len(left) > 1 else ""
    return replace(left[0], what=f"it finished{others} while others still needed it")


def fate_of(facts: RankFacts) -> Fate | None:
    """The evidence of one rank's end; None where it has not ended badly."""
    if facts.state == "unreachable" or (facts.state == "dead" and facts.is_lost):
        return Fate(facts, SILENT, "no sign of life; its node or its network may be gone")
    if facts.state not in ("dead", "failed"):
        return None
    if facts.exception:
        return _of_exception(facts, facts.exception)
    fate = _of_status(facts)
    return _of_words(fate, facts.words) if facts.words is not None and fate.kind in _VAGUE else fate


def signal_kind(end: str) -> Kind | None:
    """What a signal is evidence of, by its name or as a shell's exit code beyond 128; None for another exit code."""
    name = _NUMBERS.get(int(end) - 128) if end.isdecimal() else end
    return _SIGNALS.get(name, KILLED) if name is not None and name.startswith(("SIG", "signal ")) else None


def exception_kind(told: str) -> Kind | None:
    """What an exception is evidence of by its words, `type: message`; None where these say nothing of it."""
    return next((kind for kind, pattern in _PATTERNS if pattern.search(told)), None)


def is_vague(facts: RankFacts) -> bool:
    """Whether last words are asked for: how the rank ended is known, and tells little by itself."""
    fate = fate_of(facts)
    return fate is not None and fate.kind in _VAGUE


def _of_status(facts: RankFacts) -> Fate:
    """What the exit status says, as far as it is known."""
    code = facts.exit_code
    signal = facts.signal or (_NUMBERS.get(code - 128) if code is not None and code > 128 else None)
    if signal is not None:
        kind = _SIGNALS.get(signal, KILLED)
        if kind is KILLED and signal == "SIGKILL" and facts.oom_kills:
            return Fate(facts, OOM, "killed by SIGKILL for want of memory (oom_kill of its control group)")
        return Fate(facts, kind, f"killed by {signal}")
    if code:
        return Fate(facts, EXIT, f"exited with code {code}")
    return Fate(facts, GONE, "its process is gone, and nobody saw how")


def _of_words(fate: Fate, words: Words) -> Fate:
    """What the last words make of an end that tells little by itself."""
    facts = fate.facts
    if words.kind == EXCEPTION.name:
        kind = _of_exception(facts, {"type": words.type, "message": words.message}).kind
    else:
        kind = _BY_NAME[words.kind]
    return Fate(facts, kind, f"{fate.what}; its last words: {words.line}")


def _of_exception(facts: RankFacts, exception: Mapping[str, Any]) -> Fate:
    type_ = str(exception.get("type") or "exception")[:_TYPE_CHARS]
    message = str(exception.get("message") or "")[:_MESSAGE_CHARS]
    traceback = str(exception.get("traceback") or "")[-_TRACE_CHARS:]
    line = without_source(next(iter(message.strip().splitlines()), ""))
    what = f"{type_}: {line}" if line else type_
    kind = exception_kind(f"{type_}: {message}")
    if kind is WORKER and facts.oom_kills:
        return Fate(facts, OOM, f"{what} (oom_kill of its control group)")
    if kind is not None:
        return Fate(facts, kind, what)
    if full := _AFTER_FULL.search(traceback):
        return Fate(facts, DISK_FULL, f"{full[0][:_TYPE_CHARS]}; then {what}")
    # Only where it arose there itself: the last frames are the innermost.
    is_within = bool(_COLLECTIVE_FRAME.search("\n".join(traceback.splitlines()[-6:])))
    return Fate(facts, COLLECTIVE if is_within else EXCEPTION, what)


def _first(fates: list[Fate]) -> Fate | None:
    """The first failure among ends in the order of their times."""
    causes = [fate for fate in fates if fate.kind.class_ is not Class.ECHO]
    echoes = [fate for fate in fates if fate.kind.class_ is Class.ECHO]
    cause, echo = _strongest(causes), _strongest(echoes)
    if cause is not None and cause.kind is SILENT and _is_cut_off(causes, echoes):
        cause = _strongest([fate for fate in causes if fate.kind is not SILENT])
    if cause is None or echo is None:
        return cause or echo
    return echo if _is_before(echo, cause) else cause


def _is_cut_off(causes: list[Fate], echoes: list[Fate]) -> bool:
    """Whether who is silent is at most cut off from here: another failed by itself, and not for want of a lost peer.

    A lost peer is met by the others in time, and by some of them as what it is: they would have told of it before.
    """
    own = _strongest([fate for fate in causes if fate.kind in _BY_ITSELF])
    return own is not None and not any(_is_before(echo, own) for echo in echoes)


def _is_before(echo: Fate, cause: Fate) -> bool:
    """Whether an echo was so long before a cause that it was none of it."""
    return cause.earliest_ns > echo.latest_ns + round(echo.kind.grace_s * SECOND_NS)


def _strongest(fates: list[Fate]) -> Fate | None:
    """Of those that may have been first, the one with the strongest evidence; then the earlier, then by rank."""
    if not fates:
        return None
    by_then = min(fate.latest_ns for fate in fates)
    tied = [fate for fate in fates if fate.earliest_ns <= by_then]
    # One rank that is told to end gives all others a lost connection; one that loses its own, and ends, has all
    # others told to end.
    alike = Counter(fate.kind.name for fate in fates if fate.kind.class_ is Class.ECHO)
    return min(
        tied,
        key=lambda fate: (fate.kind.blame, alike[fate.kind.name], fate.likely_ns, fate.kind.name, fate.facts.rank),
    )


def _is_stopped(first: Fate, followers: tuple[Fate, ...], count: int) -> bool:
    """Whether those who started the ranks ended them, and nothing else had happened."""
    if first.kind is not TERMINATED:
        return False
    if followers and all(fate.kind is TERMINATED for fate in followers):
        return True  # one node is told so long after another
    by_then = first.latest_ns + round(TERMINATED.grace_s * SECOND_NS)
    return count == 1 or any(fate.kind is TERMINATED and fate.earliest_ns <= by_then for fate in followers)


def _behind(facts: RankFacts) -> tuple[bool, int, bool, int]:
    step = -1 if facts.last_step is None else facts.last_step
    return (not facts.is_held, step, not facts.is_odd, facts.rank)
