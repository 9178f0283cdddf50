"""Why a run is as it is, from the database: the cause with what is known of it, in five lines and in one clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allranks_collector.queries import find_run, list_ranks
from allranks_collector.queries.why import why
from allranks_collector.testing import T0_NS, DatabaseBuilder
from allranks_collector.why_lines import WHAT_TO_DO

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.store import Store

S = 10**9
PEER = {"type": "RuntimeError", "message": "Connection closed by peer [10.0.0.1]", "traceback": "…"}


def ask(cursor: duckdb.DuckDBPyConnection, **more: Any) -> dict[str, Any]:
    return why(cursor, find_run(cursor, "run-1"), **more)


def clock(store: Store, writer: int, seconds: float) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT INTO clocks VALUES (?, ?)", [writer, round(seconds * S)])


def killed_among_four(build: DatabaseBuilder) -> list[int]:
    run = build.run("run-1")
    writers = [
        build.writer(
            run, rank, world_size=4, host=f"node-{rank // 2}", pid=100 + rank, last_step=40 + rank, last_s=9.0
        )
        for rank in range(4)
    ]
    build.state(writers[3], "dead", {"signal": "SIGKILL", "exit_code": None}, since_s=10.0)
    for rank in range(3):
        build.state(writers[rank], "failed", {"exception": PEER, "exit_code": 1}, since_s=10.3)
    build.points(writers[3], "loss", [3.0, 2.5])
    return writers


def test_the_killed_rank_is_named_with_all_that_is_known(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    writers = killed_among_four(build)
    with store.transaction() as connection:
        text = "epoch 3 \x1b[31mbegins\x1b[0m"
        connection.execute("INSERT INTO lines VALUES (1, ?, 1, 1, ?, ?)", [writers[3], T0_NS + 9 * S, text])
    found = ask(cursor)
    first = found["first"]
    assert (found["outcome"], first["rank"], first["host"], first["pid"]) == ("failed", 3, "node-1", 103)
    assert (first["kind"], first["last_step"]) == ("killed", 43)
    assert first["metrics"] == [{"key": "loss", "step": 1, "value": 2.5}]
    assert [fate["rank"] for fate in found["followers"]] == [0, 1, 2]
    assert {fate["kind"] for fate in found["followers"]} == {"connection"}
    json.dumps(found, allow_nan=False)
    assert found["lines"] == [
        "rank 3 on node-1 (pid 103, local rank 3) failed first: killed by SIGKILL",
        "2023-11-14 22:13:30 UTC, last step 43, loss 2.5",
        "last words: epoch 3 begins",
        "followed by ranks 0-2 after 0.3 s (RuntimeError: Connection closed by peer [10.0.0.1])",
        "all 4 present. To do: " + WHAT_TO_DO["killed"],
    ]


def test_a_loss_that_is_not_a_number_is_among_the_last_metrics(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writers = killed_among_four(build)
    build.points(writers[3], "grad_norm", [1.0, float("nan")])
    found = ask(cursor)
    assert found["lines"][1].endswith("grad_norm not finite, loss 2.5")
    json.dumps(found, allow_nan=False)


def test_who_ends_well_before_the_others_is_named_with_what_to_do(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    early = build.writer(run, 0, world_size=2, host="node-0", pid=100, last_step=29, last_s=5.0)
    build.state(early, "finished", {"exit_code": 0}, since_s=5.0)
    peer = build.writer(run, 1, world_size=2, host="node-1", last_step=29, last_s=10.0)
    build.state(peer, "failed", {"exception": PEER}, since_s=10.0)
    found = ask(cursor)
    assert (found["outcome"], found["first"]["rank"], found["first"]["kind"]) == ("failed", 0, "left")
    assert found["lines"] == [
        "rank 0 on node-0 (pid 100, local rank 0) left too early: it finished while others still needed it",
        "2023-11-14 22:13:25 UTC, last step 29",
        "last words: none are kept",
        "followed by rank 1 after 5.0 s (RuntimeError: Connection closed by peer [10.0.0.1])",
        "all 2 present. To do: " + WHAT_TO_DO["left"],
    ]


def test_a_kill_for_want_of_memory_that_a_rank_of_the_host_told_is_evidence(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    writers = killed_among_four(build)
    with store.transaction() as connection:
        body = '{"killed": 1}'
        # Of another host, then of its own.
        connection.execute("INSERT INTO events VALUES (1, 1, ?, ?, 'oom', ?)", [writers[0], T0_NS + 11 * S, body])
    assert ask(cursor)["first"]["kind"] == "killed"
    with store.transaction() as connection:
        connection.execute("INSERT INTO events VALUES (2, 1, ?, ?, 'oom', ?)", [writers[2], T0_NS + 11 * S, body])
    assert ask(cursor)["first"]["kind"] == "oom"


def test_a_clock_five_minutes_off_makes_nobody_the_first(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    """Rank 0 ends at 20 s, by a clock five minutes behind; rank 1 at 10 s."""
    run = build.run("run-1")
    own = {"exception": {"type": "ValueError", "message": "no"}}
    behind = build.writer(run, 0, world_size=2, host="off", last_s=-280.0)
    right = build.writer(run, 1, world_size=2, host="on", last_s=10.0)
    build.state(behind, "failed", own, since_s=-280.0)
    build.state(right, "failed", own, since_s=10.0)
    assert ask(cursor)["first"]["rank"] == 0  # nothing is known of the clocks
    clock(store, behind, 17.0)
    clock(store, behind, 300.0)
    clock(store, right, 0.0)
    found = ask(cursor)
    assert found["first"]["rank"] == 1
    assert found["followers"][0]["after"] == 10.0
    ended = {rank["rank"]: rank["ended_at"] - T0_NS / S for rank in list_ranks(cursor, find_run(cursor, "run-1"))}
    assert ended == {0: 20.0, 1: 10.0}


def test_who_ended_before_its_clock_was_known_goes_by_its_hosts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    run = build.run("run-1")
    early = build.writer(run, 0, world_size=2, host="off", last_s=-290.0)
    build.state(early, "failed", {"exception": PEER}, since_s=-290.0)
    clock(store, build.writer(run, 1, world_size=2, host="off"), 300.0)
    assert ask(cursor)["first"]["at"] == T0_NS / S + 10.0


def test_a_silent_rank_is_judged_by_when_it_was_last_heard(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    lost = build.writer(run, 0, world_size=2, host="lost")
    build.state(lost, "unreachable", {"reason": "no sign of life for 5 s"}, since_s=15.0)
    peer = build.writer(run, 1, world_size=2, host="kept", last_s=11.0)
    build.state(peer, "failed", {"exception": PEER}, since_s=11.0)
    found = ask(cursor, last_seen={lost: T0_NS + 10 * S}.get)
    assert (found["first"]["rank"], found["first"]["kind"]) == (0, "silent")
    assert found["followers"][0]["after"] == 1.0


def test_a_death_that_nobody_saw_may_have_been_long_before(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    """The collector was away while the rank was killed, and found it dead a minute after its victims had told."""
    run = build.run("run-1")
    victim = build.writer(run, 0, world_size=2, last_s=10.0)
    build.state(victim, "failed", {"exception": PEER}, since_s=10.0)
    killed = build.writer(run, 1, world_size=2, last_s=9.0)
    detail = {"signal": "SIGKILL", "reason": "killed by SIGKILL"}
    build.state(killed, "dead", detail, since_s=70.0)
    assert ask(cursor)["first"]["rank"] == 0
    build.state(killed, "dead", {**detail, "unseen": True}, since_s=70.0)
    assert ask(cursor)["first"]["rank"] == 1


def test_a_run_that_is_not_complete_says_so_and_who_is_missing(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank in range(15):
        build.writer(run, rank, world_size=16, host=f"node-{rank // 8}", last_step=7)
    found = ask(cursor)
    assert (found["outcome"], found["first"], found["followers"]) == ("running", None, [])
    assert found["lines"] == [
        "not complete: running at step 7, and no rank has failed",
        "15 of 16 present; missing 15 (on node-1). To do: " + WHAT_TO_DO["incomplete"],
    ]
    assert found["roll_call"]["missing"] == [{"rank": 15, "host": "node-1"}]


def test_a_run_that_stands_still_names_who_is_furthest_behind(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank in range(3):
        build.state(build.writer(run, rank, world_size=3, last_step=9 - (rank == 1)), "stalled", since_s=5.0)
    found = ask(cursor)
    assert found["outcome"] == "stalled"
    assert found["lines"][1:] == [
        "newest step: 9",
        f"all 3 present. To do: {WHAT_TO_DO['stalled'].format(run=found['run'])}",
    ]
    assert found["verdict"] == "stalled: ranks 0-2; furthest behind is rank 1 on host-a, at step 8"


def test_who_has_finished_while_the_others_stand_still_is_told(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank in range(3):
        build.state(
            build.writer(run, rank, world_size=3, last_step=9), "finished" if rank == 1 else "stalled", since_s=5.0
        )
    found = ask(cursor)
    assert found["verdict"] == (
        "stalled: ranks 0,2, all at step 9; rank 1 has finished, and the others may wait for it"
    )
    assert found["lines"][-1] == "all 3 present. To do: " + WHAT_TO_DO["left"]


def test_ranks_that_stand_still_are_told_with_where_they_stand(
    store: Store, build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    writers = [build.writer(run, rank, world_size=3, last_step=9) for rank in range(3)]

    def stands(asked_s: float, function: str) -> None:
        token = f"{T0_NS + round(asked_s * S):016x}" + "0" * 16
        for rank, writer in enumerate(writers):
            frame = ["/home/me/train.py", 80 + (rank == 2), function]
            answer = json.dumps({"threads": [{"main": True, "frames": [frame]}]})
            with store.transaction() as connection:
                connection.execute(
                    "INSERT INTO stacks VALUES (?, ?, ?, ?, ?, 'asked', ?)", [run, writer, rank, token, 0, answer]
                )

    stands(3.0, "before")  # somebody asked, when all was well
    for writer in writers:
        build.state(writer, "stalled", since_s=5.0)
    assert ask(cursor)["lines"][1] == "newest step: 9"
    stands(6.0, "step")
    assert ask(cursor)["lines"] == [
        "stalled: ranks 0-2, all at step 9; rank 2 on host-a stands elsewhere than the others",
        "they stand: 2 (ranks 0-1) in step train.py:80 · rank 2 in step train.py:81",
        f"all 3 present. To do: {WHAT_TO_DO['standing'].format(run='run-1')}",
    ]


def test_a_rank_that_is_stopped_is_named_before_those_that_wait_for_it(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    build.state(build.writer(run, 0, world_size=2, last_step=8), "stalled", {"how": "still"}, since_s=5.0)
    stopped = build.writer(run, 1, world_size=2, host="host-b", last_step=9)
    build.state(
        stopped, "stalled", {"how": "stopped", "reason": "stopped by a signal (SIGSTOP) for 6 s"}, since_s=9.0
    )
    assert ask(cursor)["verdict"] == (
        "stalled: ranks 0-1; rank 1 on host-b is held: stopped by a signal (SIGSTOP) for 6 s"
    )


def test_one_rank_that_stands_still_is_named_once(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run("run-1")
    build.writer(run, 0, world_size=2, last_step=40)
    stands = build.writer(run, 1, world_size=2, last_step=8)
    build.state(stands, "stalled", {"how": "still"}, since_s=5.0)
    assert ask(cursor)["verdict"] == "stalled: rank 1 on host-a, at step 8"
    build.state(stands, "stalled", {"how": "stopped", "reason": "stopped by a signal (SIGSTOP) for 6 s"}, since_s=6.0)
    assert ask(cursor)["verdict"] == "stalled: rank 1 on host-a is held: stopped by a signal (SIGSTOP) for 6 s"


def test_who_stands_still_since_a_node_is_not_heard_is_told_with_it(
    store: Store, build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    writers = [build.writer(run, rank, world_size=4, host=f"node-{rank // 2}", last_step=9) for rank in range(4)]
    for rank, writer in enumerate(writers):
        build.state(writer, "stalled" if rank < 2 else "unreachable", since_s=10.0)
    assert ask(cursor)["lines"][3] == "no other rank failed; ranks 0-1 stand still"
    stands_at(store, run, {0: writers[0], 1: writers[1]}, 11.0)
    assert ask(cursor)["lines"][3] == (
        "no other rank failed; ranks 0-1 stand still: 2 (ranks 0-1) in step train.py:80"
    )


def stands_at(store: Store, run: int, writers: dict[int, int], asked_s: float) -> None:
    """What ranks answer that were asked then."""
    token = f"{T0_NS + round(asked_s * S):016x}" + "0" * 16
    answer = json.dumps({"threads": [{"main": True, "frames": [["/home/me/train.py", 80, "step"]]}]})
    with store.transaction() as connection:
        for rank, writer in writers.items():
            connection.execute(
                "INSERT INTO stacks VALUES (?, ?, ?, ?, 0, 'asked', ?)", [run, writer, rank, token, answer]
            )


def test_an_exit_code_that_is_none_makes_no_trouble(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    build.state(build.writer(build.run("run-1"), 0), "failed", {"exit_code": "three"}, since_s=1.0)
    assert ask(cursor)["first"]["kind"] == "gone"


def test_attempts_are_judged_apart(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run("run-1")
    build.state(build.writer(run, 0), "dead", {"signal": "SIGSEGV"}, since_s=1.0)
    build.state(build.writer(run, 0, attempt=2), "finished", {"exit_code": 0}, since_s=9.0)
    assert ask(cursor)["verdict"].startswith("healthy: all that came have finished")
    assert ask(cursor, attempt=1)["first"]["kind"] == "crash"


def test_the_gpu_of_the_first_is_named_as_nvidia_smi_does(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run("run-1"), 9, world_size=16, host="node-3", pid=4242)
    build.state(writer, "dead", {"signal": "SIGSEGV"}, since_s=1.0)
    devices = [
        {"index": 4, "name": "NVIDIA H100 80GB", "uuid": "GPU-aaaaaaaa-1111"},
        {"index": 6, "name": "NVIDIA H100 80GB", "uuid": "GPU-bbbbbbbb-2222"},
    ]
    build.surroundings(writer, {"devices": {"visible": devices, "used": []}})
    found = ask(cursor)
    assert found["first"]["gpu"] == devices[1]
    assert found["verdict"] == (
        "rank 9 on node-3 (pid 4242, GPU 6 · H100 80GB · bbb-2222) failed first: killed by SIGSEGV"
    )


def test_an_error_file_tells_of_the_exception_that_the_rank_itself_did_not(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank, (type_, message) in enumerate([("RuntimeError", "Connection closed by peer"), ("ValueError", "no")]):
        build.state(build.writer(run, rank, world_size=2), "dead", {"exit_code": 1}, since_s=1.0 + rank / 10)
        console = build.writer(run, rank, world_size=2, role="console")
        build.event(run, console, "error_file", {"type": type_, "message": message, "traceback": "…"})
    found = ask(cursor)
    assert (found["first"]["rank"], found["first"]["kind"], found["first"]["cause"]) == (
        1,
        "exception",
        "ValueError: no",
    )
    assert found["first"]["exception"]["traceback"] == "…"
    assert found["followers"][0]["kind"] == "connection"


def test_of_ranks_whose_end_nobody_saw_the_last_words_tell_who_was_first(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    said = [
        "RuntimeError: Connection closed by peer [10.0.0.1]:1",
        "Fatal Python error: Segmentation fault",
        "step 9",
    ]
    for rank, text in enumerate(said):
        build.state(build.writer(run, rank, world_size=3), "dead", {"exit_code": None}, since_s=10.0 + rank / 100)
        console = build.writer(run, rank, world_size=3, role="console")
        build.line(console, text, second=9.9)
        build.line(console, '  File "train.py", line 3', line=1, second=9.9)
    found = ask(cursor)
    assert (found["first"]["rank"], found["first"]["kind"]) == (1, "crash")
    assert found["first"]["cause"] == (
        "its process is gone, and nobody saw how; its last words: Fatal Python error: Segmentation fault"
    )
    assert {fate["rank"]: fate["kind"] for fate in found["followers"]} == {0: "connection", 2: "gone"}


def test_the_line_that_tells_most_stands_before_the_last_ones_and_marks_are_left_out(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    build.state(build.writer(run, 0), "dead", {"signal": "SIGSEGV"}, since_s=10.0)
    console = build.writer(run, 0, role="console")
    said = ["[rank0]: Fatal Python error: Segmentation fault", *["  File x"] * 9, "  main()", "  ~~~~^^", "", "over"]
    for number, text in enumerate([*said, "Extension modules: torch"]):
        build.line(console, text, line=number, second=9.0)
    assert ask(cursor)["lines"][2] == "last words: Fatal Python error: Segmentation fault | main() | over"


def test_a_run_that_hung_and_was_ended_names_who_stood_elsewhere(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    run = build.run("run-1")
    writers = [build.writer(run, rank, world_size=3, pid=100 + rank, last_step=7) for rank in range(3)]
    for writer in writers:
        build.state(writer, "stalled", {"how": "still"}, since_s=20.0)
        build.state(writer, "dead", {"signal": "SIGTERM"}, since_s=60.0 + writer / 100)
    token = f"{T0_NS + 21 * S:016x}{0:016x}"
    with store.transaction() as connection:
        for rank, frame in enumerate(
            [["train.py", 88, "all_reduce"], ["train.py", 88, "all_reduce"], ["d.py", 4, "load"]]
        ):
            answer = json.dumps({"threads": [{"name": "MainThread", "main": True, "id": 1, "frames": [frame]}]})
            connection.execute(
                "INSERT INTO stacks VALUES (?, ?, ?, ?, 0, 'asked', ?)", [run, writers[rank], rank, token, answer]
            )
    found = ask(cursor)
    assert (found["first"]["rank"], found["first"]["kind"], found["first"]["at"]) == (2, "hung", T0_NS / S + 20)
    assert found["verdict"] == (
        "rank 2 on host-a (pid 102, local rank 2) hung, and the run was ended for it:"
        " it stood in load d.py:4, and most others in all_reduce train.py:88"
    )
    assert found["lines"][-1].endswith("allranks stacks run-1 --last --full")
    build.state(writers[2], "running", since_s=70.0)
    build.state(writers[2], "dead", {"signal": "SIGTERM"}, since_s=80.0)
    assert ask(cursor)["first"]["kind"] == "terminated"  # it had gone on


@pytest.mark.parametrize(
    ("how", "reason", "told"),
    [
        ("stopped", "stopped by a signal (SIGSTOP) for 5 s", "it was stopped by a signal (SIGSTOP)"),
        ("debugger", "held by a debugger (process 7) for 5 s", "it was held by a debugger (process 7)"),
        ("silent", "no step after 9 for 12 s, and no beat for 9 s", "it stood still: no step after 9, and no beat"),
    ],
)
def test_a_rank_that_was_held_is_why_the_run_hung_and_all_were_killed(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, how: str, reason: str, told: str
) -> None:
    run = build.run("run-1")
    for rank in range(3):
        writer = build.writer(run, rank, world_size=3, pid=100 + rank, last_step=9)
        stall = (
            {"how": how, "reason": reason} if rank == 2 else {"how": "still", "reason": "no step after 9 for 10 s"}
        )
        build.state(writer, "stalled", stall, since_s=20.0 - rank)
        build.state(writer, "dead", {"signal": "SIGKILL"}, since_s=60.0)
    found = ask(cursor)
    assert found["verdict"] == (
        f"rank 2 on host-a (pid 102, local rank 2) hung, and the run was ended for it: {told}"
    )
    assert [fate["rank"] for fate in found["followers"]] == [0, 1]


def test_a_rank_that_is_held_while_the_others_train_is_not_why_one_of_them_is_killed(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank in range(3):
        writer = build.writer(run, rank, world_size=3, last_step=9)
        if rank == 2:
            build.state(writer, "stalled", {"how": "silent", "reason": "no beat for 9 s"}, since_s=20.0)
        build.state(writer, "dead", {"signal": "SIGTERM" if rank else "SIGKILL"}, since_s=60.0 + rank)
    assert (ask(cursor)["first"]["rank"], ask(cursor)["first"]["kind"]) == (0, "killed")


def test_a_rank_that_never_came_is_why_the_others_gave_up(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    gave_up = {"type": "DistStoreError", "message": "Timed out after 301 seconds waiting for clients. 3/4 joined."}
    for rank in (0, 1, 3):
        state = {"exception": gave_up, "exit_code": 1}
        build.state(build.writer(run, rank, world_size=4, pid=100), "failed", state, since_s=300.0 + rank)
    found = ask(cursor)
    assert found["verdict"] == (
        "rank 2 never came, and the others waited in vain, rank 0 on host-a (pid 100, local rank 0) the shortest:"
        " DistStoreError: Timed out after 301 seconds waiting for clients. 3/4 joined."
    )
    assert found["lines"][-1].endswith(f"missing 2 (on host-a). To do: {WHAT_TO_DO['incomplete']}")


def test_who_is_missing_though_the_others_have_trained_has_only_said_nothing(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run("run-1"), 0, world_size=4, last_step=9)
    build.state(writer, "failed", {"exception": PEER}, since_s=300.0)
    assert ask(cursor)["verdict"].startswith("rank 0 on host-a")


def test_a_lost_node_is_named_with_its_ranks_also_once_they_are_taken_for_dead(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    for rank in range(4):
        writer = build.writer(run, rank, world_size=4, host=f"node-{rank // 2}", last_s=9.0)
        if rank < 2:
            build.state(writer, "failed", {"exception": PEER, "exit_code": 1}, since_s=40.0)
        elif rank == 2:
            build.state(writer, "unreachable", {"silent_s": 5.0}, since_s=15.0)
        else:
            build.state(writer, "dead", {"lost": True, "silent_s": 600.0}, since_s=611.0)
    found = ask(cursor)
    assert (found["first"]["rank"], found["first"]["lost"], found["followers"][0]["after"]) == (2, [2, 3], 1.0)
    assert found["lines"][0] == "node-1 was lost: ranks 2-3 went silent, and the others failed after that"
    assert (
        found["lines"][3] == "followed by ranks 0-1 after 30.0 s (RuntimeError: Connection closed by peer [10.0.0.1])"
    )


@pytest.mark.parametrize(
    ("end", "cause"),
    [({"signal": "SIGTERM"}, "killed by SIGTERM"), ({}, "its process is gone, and nobody saw how")],
)
def test_a_rank_that_never_came_is_why_the_others_were_ended(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, end: dict[str, Any], cause: str
) -> None:
    run = build.run("run-1")
    for rank in (0, 1, 3):
        build.state(build.writer(run, rank, world_size=4, pid=100), "dead", end, since_s=3.0 + rank)
    found = ask(cursor)
    assert found["verdict"] == (
        "rank 2 never came, and the others were ended before their first step,"
        f" rank 0 on host-a (pid 100, local rank 0) first: {cause}"
    )
    assert found["lines"][-1].endswith(WHAT_TO_DO["incomplete"])


@pytest.mark.parametrize(("ranks", "did"), [(1, "was stopped"), (2, "was stopped, and others with it")])
def test_a_rank_that_was_stopped_alone_has_no_others(
    cursor: duckdb.DuckDBPyConnection, build: DatabaseBuilder, ranks: int, did: str
) -> None:
    run = build.run()
    for rank in range(ranks):
        build.state(
            build.writer(run, rank, world_size=ranks), "failed", {"signal": "SIGTERM"}, since_s=9.0 + rank / 100
        )
    found = ask(cursor)
    assert found["outcome"] == "stopped"
    assert f" {did}: killed by SIGTERM" in found["verdict"]
