"""Where ranks stand, grouped: `63 in all_reduce train.py:88 · rank 17 in DataLoader.__next__ data.py:41`.

A rank stands where its main thread does: at the innermost line of the program's own code, in the outermost well-known
wait that this line has called. Ranks of one line in one wait are one group; a rank that did not answer stands by the
reason for that. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Groups of at most so many ranks are told by their ranks, larger ones by how many they are.
_NAMED_RANKS = 8

# Files that are nobody's own code: installed packages, the standard library, what is frozen into the interpreter.
_FOREIGN = re.compile(
    r"/(site|dist)-packages/|/lib(64)?/python\d[^/]*/|^<frozen |^<__array_function__|/allranks/_[a-z_]+\.py$"
)
_PACKAGE = re.compile(r"/(?:site|dist)-packages/([^/]+)")

# Functions that ranks wait in: the end of the file's path, the function, and what it is called; None for the
# function's own name. The first that fits counts.
_ALL = re.compile(r"[a-z]\w*")


def _of(*names: str) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, names)))


_WAITS: tuple[tuple[re.Pattern[str], re.Pattern[str], str | None], ...] = tuple(
    (re.compile(path), functions, called)
    for path, functions, called in (
        (r"torch/distributed/checkpoint/\w+\.py$", _of("save", "async_save", "load"), "distributed.checkpoint"),
        (r"torch/distributed/distributed_c10d\.py$", _ALL, None),
        (r"torch/distributed/(nn/)?functional\.py$", _ALL, None),
        (r"torch/distributed/_functional_collectives\.py$", _ALL, None),
        (r"torch/distributed/(rendezvous|elastic/.+)\.py$", _ALL, "rendezvous"),
        (r"torch/utils/data/dataloader\.py$", _of("__next__"), "DataLoader.__next__"),
        (r"torch/utils/data/dataloader\.py$", _of("__iter__", "__init__"), "DataLoader.__iter__"),
        (r"torch/cuda/__init__\.py$", _of("synchronize"), "cuda.synchronize"),
        (r"torch/cuda/streams\.py$", _of("synchronize", "wait", "wait_event", "wait_stream"), "cuda.synchronize"),
        (r"torch/(_tensor|autograd/__init__)\.py$", _of("backward", "grad"), "backward"),
        (r"torch/serialization\.py$", _of("save", "load"), "torch.{}"),
        (r"torch/(_dynamo/convert_frame|_inductor/\w+)\.py$", _ALL, "torch.compile"),
        (r"safetensors/torch\.py$", _ALL, "safetensors.{}"),
        (r"huggingface_hub/.+\.py$", _ALL, "huggingface_hub"),
        (r"fsspec/.+\.py$", _ALL, "fsspec.{}"),
        (r"multiprocessing/queues\.py$", _of("get", "put"), "Queue.{}"),
        (
            r"multiprocessing/connection\.py$",
            _of("recv", "recv_bytes", "poll", "send", "wait", "accept"),
            "Connection.{}",
        ),
        (r"multiprocessing/process\.py$", _of("join"), "Process.join"),
        (r"/queue\.py$", _of("get", "put", "join"), "Queue.{}"),
        (r"/threading\.py$", _of("join"), "Thread.join"),
        (r"/threading\.py$", _of("wait", "wait_for", "acquire"), "{}"),
        (r"/concurrent/futures/\w+\.py$", _of("result", "wait", "as_completed", "shutdown"), "Future.{}"),
        (r"/subprocess\.py$", _of("wait", "communicate", "run", "check_output", "call"), "subprocess.{}"),
        (
            r"/(socket|ssl)\.py$",
            _of("accept", "connect", "create_connection", "readinto", "recv", "read"),
            "socket.{}",
        ),
        (r"/urllib/request\.py$", _of("urlopen"), "urlopen"),
        (r"/requests/.+\.py$", _ALL, "requests"),
        (r"/selectors\.py$", _of("select"), "select"),
        (r"/asyncio/runners\.py$", _of("run"), "asyncio.run"),
    )
)


@dataclass(frozen=True)
class Group:
    """Ranks that stand alike.

    Attributes:
        where: such as `all_reduce train.py:88`; for those without an answer the reason.
        ranks: in order.
        answered: False for those that have no stacks.
        wait, function, file, line: what `where` is made of; empty and 0 where that is not known.
    """

    where: str
    ranks: tuple[int, ...]
    answered: bool
    wait: str = ""
    function: str = ""
    file: str = ""
    line: int = 0

    def told(self) -> dict[str, Any]:
        """As JSON says it, with `text`."""
        return {"text": phrase(self), **self.__dict__, "ranks": list(self.ranks)}


@dataclass(frozen=True)
class _Place:
    where: str
    answered: bool
    wait: str = ""
    function: str = ""
    file: str = ""
    line: int = 0


def group(answers: Mapping[int, Mapping[str, Any]]) -> list[Group]:
    """The groups that these ranks form, the largest first; each rank is in exactly one.

    Args:
        answers: by rank, what it answered: `threads` (stack_dumps), or the `reason` why there are none.
    """
    found: dict[_Place, list[int]] = {}
    for rank in sorted(answers):
        found.setdefault(_place(answers[rank]), []).append(rank)
    groups = [Group(ranks=tuple(ranks), **place.__dict__) for place, ranks in found.items()]
    return sorted(groups, key=lambda each: (-len(each.ranks), each.ranks[0]))


def odd_ones(groups: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """The ranks that stand elsewhere than most, or do not answer while most do: the others may wait for them.

    Args:
        groups: as `Group.told` has them.
    """
    count = sum(len(each["ranks"]) for each in groups)
    most = next((each for each in groups if each["answered"] and 2 * len(each["ranks"]) > count), None)
    return (
        frozenset()
        if most is None
        else frozenset(rank for each in groups if each is not most for rank in each["ranks"])
    )


def sentence(groups: Sequence[Group]) -> str:
    """All groups in one line."""
    return " · ".join(phrase(each) for each in groups)


def phrase(of: Group) -> str:
    """One group: `63 in all_reduce train.py:88`, or with its ranks' names where they are few."""
    word = "in " if of.answered else ""
    if len(of.ranks) == 1:
        return f"rank {of.ranks[0]} {word}{of.where}" if of.answered else f"rank {of.ranks[0]}: {of.where}"
    names = f" (ranks {_ranges(of.ranks)})" if len(of.ranks) <= _NAMED_RANKS else ""
    return f"{len(of.ranks)}{names} {word}{of.where}" if of.answered else f"{len(of.ranks)}{names}: {of.where}"


def _ranges(ranks: Iterable[int]) -> str:
    """`0-3,7`."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and parts[-1][1] == rank - 1:
            parts[-1][1] = rank
        else:
            parts.append([rank, rank])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _place(answer: Mapping[str, Any]) -> _Place:
    threads = answer.get("threads") or []
    main = next((thread for thread in threads if thread["main"]), None)
    if main is None:
        reason = answer.get("reason") or ("its main thread has ended" if threads else "no answer")
        return _Place(str(reason), answered=False)
    return _stand(main["frames"])


def _stand(frames: Sequence[Sequence[Any]]) -> _Place:
    """Where a stack stands; frames innermost first."""
    if not frames:
        return _Place("C code without a Python frame", answered=True)
    own = next((at for at, frame in enumerate(frames) if not _FOREIGN.search(frame[0])), None)
    above = frames[: len(frames) if own is None else own]
    waits = ((at, name) for at in reversed(range(len(above))) if (name := _wait(above[at])))
    at, wait = next(waits, (-1, ""))
    if own is None:  # a program that is an installed package itself: who called the wait
        own = next(
            (
                outer
                for outer in range(at + 1, len(frames))
                if _package(frames[outer]) != _package(frames[max(at, 0)])
            ),
            max(at, 0),
        )
    file, line, function = frames[own]
    function, name = _last(function), file.rpartition("/")[2]
    if not wait:
        # Nothing that is known: what the line has called, or, where it has called only C code, its own function.
        wait = _last(frames[own - 1][2]) if own else function
    return _Place(f"{wait} {name}:{line}", True, wait, function, name, line)


def _wait(frame: Sequence[Any]) -> str | None:
    file, _, function = frame
    name = _last(function)
    for path, functions, called in _WAITS:
        if functions.fullmatch(name) and path.search(file):
            return name if called is None else called.format(name)
    return None


def _package(frame: Sequence[Any]) -> str | None:
    """The installed package that a frame is of; None for the standard library."""
    found = _PACKAGE.search(frame[0])
    return found[1] if found else None


def _last(function: str) -> str:
    """`get` of `Queue.get`, `step` of `main.<locals>.step`; what has no name of its own stays."""
    last = function.rpartition(".")[2]
    return last or function
