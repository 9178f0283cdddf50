"""What an alert says: whose it is and what it is in one line, and below what helps."""

from __future__ import annotations

from allranks_collector.alerts.rules import RULES, Facts, Group, Happening, compose

_FACTS = Facts("r1", "bert", "http://h:5570/runs/r1", "node-3", 1204, "RuntimeError: NCCL")


def _rank(rule: str, rank: int, what: str, reason: str = "") -> Happening:
    return Happening(RULES[rule], 1, rank, what, reason, rank, rank)


def test_a_dead_rank_is_named_with_host_reason_step_and_last_line() -> None:
    message = compose(Group([_rank("dead", 17, "is dead", "killed by SIGKILL")]), _FACTS)
    assert message.title == "run bert: rank 17 on node-3 is dead (killed by SIGKILL)"
    assert message.text == "step 1204\nit printed last: RuntimeError: NCCL\nhttp://h:5570/runs/r1"
    assert (message.run_id, message.rule, message.level, message.rank) == ("r1", "dead", "ERROR", 17)


def test_the_others_are_counted_by_what_they_are() -> None:
    others = [_rank("failed", rank, "has failed", "NCCL") for rank in range(16)]
    message = compose(Group([_rank("dead", 17, "is dead"), *others]), Facts("r1"))
    assert message.title == "run r1: rank 17 is dead, and 16 others"
    assert message.text.splitlines() == ["1 dead: ranks 17", "16 failed: ranks 0-15"]


def test_a_run_that_failed_names_its_first_cause() -> None:
    end = Happening(RULES["run-failed"], 1, 1, "has failed")
    message = compose(Group([end], causes=[_rank("dead", 3, "is dead", "killed by SIGSEGV")]), _FACTS)
    assert message.title == "run bert has failed: rank 3 on node-3 is dead (killed by SIGSEGV)"
    assert compose(Group([end]), Facts("r1")).title == "run r1 has failed"


def test_what_a_program_says_comes_with_its_words_and_level() -> None:
    alert = Happening(RULES["user"], 1, 0, "lr is odd", "It rose\nto 3.", 2, 2, level="WARN")
    message = compose(Group([alert]), Facts("r1", host="a"))
    assert (message.title, message.level) == ("run r1: lr is odd", "WARN")
    assert message.text == "It rose\nto 3.\nfrom rank 2 on a"


def test_a_recovery_says_who_is_back() -> None:
    back = Group([_rank("unreachable", 4, ""), _rank("unreachable", 5, "")], is_recovery=True)
    message = compose(back, Facts("r1", host="a"))
    assert (message.title, message.rule, message.level) == (
        "run r1: rank 4 on a is running again, and 1 other",
        "recovered",
        "INFO",
    )


def test_what_was_held_back_is_said() -> None:
    message = compose(Group([_rank("stalled", 1, "is stalled")], more=12), Facts("r1"))
    assert "12 more of this kind were held back" in message.text


def test_no_title_can_break_a_line_or_set_a_terminal() -> None:
    alert = Happening(RULES["user"], 1, 0, "a\r\nBcc: x\x1b]0;t\x07\x1b[31m" + "z" * 999, "", 1, 1)
    title = compose(Group([alert]), Facts("r1")).title
    assert title.isprintable()
    assert len(title) <= 250
