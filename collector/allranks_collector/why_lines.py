"""Why a run is as it is, in five lines: what failed, when, its last words, who followed, what to do. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from allranks_collector.escapes import shown
from allranks_collector.folding import ranks_text
from allranks_collector.last_words import plain, without_source

_WORDS_AT_MOST, _LINES_AT_MOST = 300, 3
_CAUSE_AT_MOST, _TEXT_AT_MOST = 120, 95
_METRICS_AT_MOST, _GROUPS_AT_MOST = 6, 4
# So much of a GPU's UUID tells it from the others of a host.
_UUID_TAIL = 8

# Marks below the lines of a traceback, and what faulthandler lists below a stack.
_IDLE = re.compile(r"[\s^~]*|Extension modules: .*")

# What helps most, by the kind of the first failure, and by the outcome where there is none. A command is whole: it
# can be copied as it stands.
WHAT_TO_DO: Mapping[str, str] = {
    "oom": "give its host more memory, or let the ranks there use less",
    "crash": "look at its last lines for the native stack (PYTHONFAULTHANDLER=1), and at its host and device",
    "killed": "find who sent the signal: the scheduler, a person, or the host's own out-of-memory killer (dmesg)",
    "device-oom": "let it use less of its GPU's memory (a smaller batch, sharding), or see who else uses that GPU",
    "disk-full": "make room on the disk that it writes to (checkpoints, caches), or let it write elsewhere",
    "worker": "give its host more memory, or more shared memory (/dev/shm), or let it use fewer or smaller workers",
    "exception": "look at its traceback and its last lines",
    "exit": "look at its last lines: it ended without an exception",
    "abort": "look at its last lines: a library gave up, perhaps for want of another rank",
    "silent": "look whether its host is up and reaches the collector",
    "hung": "look at its whole stack: allranks stacks {run} --last --full",
    "left": "see why it had less to do than the others (uneven data, an early return), or let all end together",
    "gone": "look at its last lines: nobody saw its exit code",
    "connection": "look at the network of its host: no rank had failed before",
    "collective": "no rank had failed before: ask the ranks where they stand next time (allranks stacks {run})",
    "terminated": "ask who sent the signal: a person, the launcher or the scheduler",
    "stopped": "nothing failed: a person, the launcher or the scheduler ended it, perhaps for its time limit",
    "stalled": "ask the ranks where they stand: allranks stacks {run}",
    "standing": "look at who stands elsewhere than the others: allranks stacks {run} --full",
    "running": "nothing",
    "incomplete": "look at the hosts of those that are missing, and at what they printed there",
    "finished": "nothing",
    "expected": "start the ranks, and look whether they reach the collector (allranks doctor)",
}
# What ranks end by for want of another, and what they are ended by where a launcher loses one before it has come.
_IN_VAIN: Mapping[str, str] = {
    **dict.fromkeys(("connection", "collective"), "waited in vain, {who} the shortest"),
    **dict.fromkeys(("gone", "terminated"), "were ended before their first step, {who} first"),
}
_DID: Mapping[str, str] = {
    "hung": "hung, and the run was ended for it",
    "left": "left too early",
}
_FIRST: Mapping[str, str] = {
    "stopped": "was stopped",
    "unreachable": "is not heard any more",
}
_HEALTHY: Mapping[str, str] = {
    "incomplete": "not complete: running{at}, and no rank has failed",
    "running": "healthy: running{at}, and no rank has failed",
    "finished": "healthy: all that came have finished{at}",
    "expected": "nobody has come yet",
}


def tell(answer: Mapping[str, Any]) -> list[str]:
    """The lines, of which the first is the verdict; of `queries.why`'s answer."""
    first, outcome = answer["first"], str(answer["outcome"])
    roll = " ".join(f"{said}." for said in (answer["roll_call"]["text"], *answer["roll_call"]["claims"]))

    def to_do(key: str) -> str:
        return f"{roll} To do: {WHAT_TO_DO[key].format(run=answer['run'])}"

    if first is not None:
        key = outcome if outcome == "stopped" and first["kind"] != "hung" else str(first["kind"])
        missing = answer["roll_call"]["missing"] if _is_in_vain(first) else []
        if missing:
            key = "incomplete"
        return [
            _verdict(first, outcome, missing, answer["followers"]),
            _when(first),
            _last_words(first["last_lines"], first["words"]),
            _others(answer, [fate for fate in answer["followers"] if fate["rank"] not in first["lost"]]),
            to_do(key),
        ]
    step = answer["last_step"]
    if answer["stalled"]:
        key = "standing" if answer["stands"] else "stalled"
        where = f"they stand: {answer['stands']}" if answer["stands"] else f"newest step: {step}"
        standing = _standing(answer["stalled"])
        if answer["finished"] and not answer["stalled"][0]["held"]:
            key, standing = "left", f"{standing}; {_have_finished(answer['finished'])}"
        return [_one_line(standing), _one_line(where), to_do(key)]
    key = "incomplete" if answer["roll_call"]["missing"] and outcome == "running" else outcome
    verdict = _HEALTHY[key].format(at="" if step is None else f" at step {step}")
    return [verdict, to_do(key)]


def _verdict(
    first: Mapping[str, Any],
    outcome: str,
    missing: Sequence[Mapping[str, Any]],
    followers: Sequence[Mapping[str, Any]],
) -> str:
    if first["lost"]:
        ranks = _ranks(first["lost"])
        if outcome == "unreachable":
            return _one_line(f"{ranks} on {first['host']}: not heard any more, and no rank has failed")
        return _one_line(f"{first['host']} was lost: {ranks} went silent, and the others failed after that")
    who = f"rank {first['rank']} on {first['host']} (pid {first['pid']}{_device(first)})"
    if missing:
        absent = _ranks([int(each["rank"]) for each in missing])
        others = _IN_VAIN[str(first["kind"])].format(who=who)
        return _one_line(f"{absent} never came, and the others {others}: {first['cause']}")
    did = _DID.get(str(first["kind"]), _FIRST.get(outcome, "failed first"))
    others = ", and others with it" if did == _FIRST["stopped"] and followers else ""
    return _one_line(f"{who} {did}{others}: {first['cause']}")


def _is_in_vain(first: Mapping[str, Any]) -> bool:
    """Whether it may have waited for others to come: whoever has made a step has met them all."""
    return first["last_step"] is None and first["kind"] in _IN_VAIN


def _device(first: Mapping[str, Any]) -> str:
    """Its GPU, as `nvidia-smi` counts and names it; its local rank where that is not known."""
    gpu = first["gpu"]
    if gpu is None:
        return "" if first["local_rank"] is None else f", local rank {first['local_rank']}"
    names = [f"GPU {gpu['index']}", gpu["name"].removeprefix("NVIDIA "), gpu["uuid"][-_UUID_TAIL:]]
    return ", " + " · ".join(name for name in names if name)


def _when(first: Mapping[str, Any]) -> str:
    at = first["at"]
    time = "at a time that nobody knows" if at is None else f"{datetime.fromtimestamp(at, timezone.utc):%F %T} UTC"
    step = "before its first step" if first["last_step"] is None else f"last step {first['last_step']}"
    metrics = [f"{metric['key']} {_number(metric['value'])}" for metric in first["metrics"]]
    return _one_line(", ".join([time, step, *metrics[:_METRICS_AT_MOST]]))


def _last_words(lines: Sequence[Mapping[str, Any]], telling: str | None) -> str:
    """The last lines that say anything, and before them the one that tells most of the end."""
    texts = [plain(shown(line["text"], colours=False)).strip() for line in lines]
    texts = [text for text in texts if _IDLE.fullmatch(text) is None and text != telling]
    texts = texts[-_LINES_AT_MOST:] if telling is None else [telling, *texts[1 - _LINES_AT_MOST :]]
    texts = [_cut(without_source(text), _TEXT_AT_MOST) for text in texts]
    return "last words: " + (_one_line(" | ".join(texts)) if texts else "none are kept")


def _others(answer: Mapping[str, Any], followers: Sequence[Mapping[str, Any]]) -> str:
    """What became of the others: who followed, or who stands still for want of the first."""
    if followers:
        return _followers(followers)
    if not answer["stalled"]:
        return "no other rank failed"
    ranks = [int(rank["rank"]) for rank in answer["stalled"]]
    where = f": {answer['stands']}" if answer["stands"] else ""
    return _one_line(f"no other rank failed; {_ranks(ranks)} {'stands' if len(ranks) == 1 else 'stand'} still{where}")


def _followers(followers: Sequence[Mapping[str, Any]]) -> str:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for fate in followers:
        groups.setdefault(str(fate["kind"]), []).append(fate)
    told = [_group(group) for group in list(groups.values())[:_GROUPS_AT_MOST]]
    more = sum(map(len, list(groups.values())[_GROUPS_AT_MOST:]))
    return _one_line("followed by " + "; ".join([*told, *([f"and {more} more"] if more else [])]))


def _group(group: Sequence[Mapping[str, Any]]) -> str:
    after = min(max(0.0, float(fate["after"])) for fate in group)
    who = _ranks([int(fate["rank"]) for fate in group])
    return f"{who} after {after:.1f} s ({_cut(str(group[0]['cause']), _CAUSE_AT_MOST)})"


def _standing(stalled: Sequence[Mapping[str, Any]]) -> str:
    ranks = _ranks([int(rank["rank"]) for rank in stalled])
    worst = stalled[0]
    who = f"rank {worst['rank']} on {worst['host']}"
    is_alone = len(stalled) == 1
    if worst["held"]:
        return _one_line(f"stalled: {'' if is_alone else f'{ranks}; '}{who} is held: {worst['reason']}")
    where = "before its first step" if worst["last_step"] is None else f"at step {worst['last_step']}"
    if is_alone:
        return _one_line(f"stalled: {who}, {where}")
    if len({rank["last_step"] for rank in stalled}) == 1:
        odd = f"; {who} stands elsewhere than the others" if worst["odd"] else ""
        return _one_line(f"stalled: {ranks}, all {where}{odd}")
    return _one_line(f"stalled: {ranks}; furthest behind is {who}, {where}")


def _have_finished(ranks: list[int]) -> str:
    who, them = ("has", "it") if len(ranks) == 1 else ("have", "them")
    return f"{_ranks(ranks)} {who} finished, and the others may wait for {them}"


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ranks_text(sorted(ranks))


def _number(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return _cut(line, _WORDS_AT_MOST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
