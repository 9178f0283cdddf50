"""A run's attempts, goodput and timeline from the database: in one clock, and alike by every way to ask."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.serving import asking

from allranks_collector.api import ApiContext, create_app
from allranks_collector.api import attempts as models
from allranks_collector.attempts import Account, AttemptFacts, account
from allranks_collector.claims import TWICE
from allranks_collector.cli.app import run as cli
from allranks_collector.cli.attempts import view
from allranks_collector.cli.local_reader import LocalReader
from allranks_collector.queries import attempts as module
from allranks_collector.queries import computed_stats, find_run
from allranks_collector.queries.attempts import list_attempts
from allranks_collector.queries.timeline import MAX_ROWS, STATES, timeline
from allranks_collector.settings import Settings
from allranks_collector.testing import T0_NS, DatabaseBuilder, StillLive

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from allranks_collector.store import Store

S = 10**9


def ask(cursor: duckdb.DuckDBPyConnection, now_s: float | None = None, **more: Any) -> dict[str, Any]:
    now_ns = None if now_s is None else T0_NS + round(now_s * S)
    return list_attempts(cursor, find_run(cursor, "run-1"), now_ns=now_ns, **more)


def seconds(found: dict[str, Any]) -> dict[str, float]:
    """The parts of the goodput that are not empty."""
    return {name: value for name, value in found["goodput"].items() if name.endswith("_s") and value}


def restarted(build: DatabaseBuilder) -> tuple[int, list[int]]:
    """Two ranks, killed at step 100 with a checkpoint at 60, and begun again; a step is a second."""
    run = build.run("run-1", attempts=2)
    writers: list[int] = []
    for attempt, opened_s, first_s, first, last, end_s in ((1, 0, 10, 0, 100, 115), (2, 150, 160, 61, 120, 225)):
        for rank in (0, 1):
            writer = build.writer(
                *(run, rank), attempt=attempt, world_size=2, opened_s=opened_s + rank, last_s=first_s + last - first
            )
            steps = list(range(first, last + 1))
            times = [first_s + step - first for step in steps]
            build.points(writer, "val/loss", [1.0], steps=[first], seconds=[times[0]])
            build.points(writer, "loss", [0.5] * len(steps), steps=steps, seconds=times)
            if attempt == 1:
                how = {"signal": "SIGKILL"} if rank else {"signal": "SIGTERM"}
                build.state(writer, "dead", {**how, "exit_code": None}, since_s=end_s - 0.5 * rank)
            else:
                build.state(writer, "finished", {"exit_code": 0}, since_s=end_s)
            writers.append(writer)
    return run, writers


def test_each_attempt_tells_where_it_went_on_what_it_did_again_and_why_it_ended(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    restarted(build)
    found = ask(cursor)
    first, second = found["attempts"]
    assert first == {
        "attempt": 1,
        "began_ns": T0_NS,
        "ended_ns": T0_NS + 115 * S,
        "state": "killed",
        "first_step": 0,
        "last_step": 100,
        "resumed_from": None,
        "recomputed": 0,
        "why": "rank 1 on host-a (pid 1002, local rank 1) failed first: killed by SIGKILL",
    }
    assert (second["state"], second["first_step"], second["last_step"], second["why"]) == ("finished", 61, 120, None)
    assert (second["resumed_from"], second["recomputed"]) == (61, 40)
    # The seconds of steps 62 … 100 are for naught; step 61 itself ends the second attempt's init.
    assert seconds(found) == {
        "total_s": 225,
        "init_s": 20,
        "productive_s": 100 + 20 + 6,
        "recomputation_s": 39,
        "detection_s": 5,
        "restart_s": 35,
    }
    assert found["goodput"]["fraction"] == pytest.approx(126 / 225)


def test_it_does_not_matter_where_the_counts_of_series_come_from(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    """From the points where nobody has counted; from a running collector, which knows of other runs' series too."""
    restarted(build)
    other = build.writer(build.run("other"), attempt=1)
    series = build.points(other, "loss", [1.0] * 5000)
    live = computed_stats(cursor, range(1, series + 1))
    assert series in live["series"]
    assert ask(cursor, live=live) == ask(cursor)


def test_a_long_attempt_is_thinned_and_comes_out_the_same(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1", attempts=2)
    for attempt, begin, first, last in ((1, 0, 0, 30_000), (2, 30_100, 20_000, 50_000)):
        writer = build.writer(run, attempt=attempt, opened_s=begin, last_s=begin + last - first)
        steps = range(first, last + 1)
        build.points(writer, "loss", [0.5] * len(steps), steps=steps, seconds=[begin + at - first for at in steps])
        build.state(writer, "dead" if attempt == 1 else "finished", since_s=begin + last - first)
    found = seconds(ask(cursor))
    assert found["total_s"] == 60_100
    assert found["recomputation_s"] == pytest.approx(10_000, abs=20)
    assert found["productive_s"] == pytest.approx(50_000, abs=20)


def test_however_an_attempts_clock_went_its_way_is_known_at_few_times(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest event is older than its beginning: the clock was set back."""
    writer = build.writer(build.run("run-1"), last_s=-4000)
    build.points(writer, "loss", [0.5] * 9000, seconds=[second - 4000 * (second > 0) for second in range(9000)])
    build.state(writer, "finished", since_s=9000)
    lengths: list[int] = []

    def counted(attempts: list[AttemptFacts], now_ns: int) -> Account:
        lengths.extend(len(facts.path) for facts in attempts)
        return account(attempts, now_ns)

    monkeypatch.setattr(module, "account", counted)
    (one,) = ask(cursor)["attempts"]
    assert (one["first_step"], one["last_step"]) == (0, 8999)
    assert 1000 < lengths[0] <= 4002


def test_a_stall_counts_from_the_last_step_and_not_from_when_it_was_noticed(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run("run-1"), last_s=60)
    build.points(writer, "loss", [0.5] * 4, steps=[0, 10, 11, 21], seconds=[0, 10, 50, 60])
    build.state(writer, "stalled", {"how": "still", "still_s": 12.0}, since_s=22)
    build.state(writer, "running", since_s=50)
    assert seconds(ask(cursor, now_s=70)) == {"total_s": 70, "productive_s": 30, "stalled_s": 40}


def test_an_attempt_of_a_writer_with_another_clock_is_told_in_the_collectors(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, store: Store
) -> None:
    run = build.run("run-1")
    writer = build.writer(run, opened_s=-300, last_s=-280)
    build.points(writer, "loss", [0.5] * 11, seconds=[second - 295 for second in range(11)])
    build.state(writer, "finished", {"exit_code": 0}, since_s=-280)
    with store.transaction() as connection:
        connection.execute("INSERT INTO clocks VALUES (?, ?)", [writer, 300 * S])
    found = ask(cursor, now_s=1000)
    (one,) = found["attempts"]
    assert (one["began_ns"], one["ended_ns"]) == (T0_NS, T0_NS + 20 * S)
    assert seconds(found) == {"total_s": 20, "init_s": 5, "productive_s": 15}
    shown = timeline(cursor, find_run(cursor, "run-1"))
    assert shown["ranks"][0]["spans"][0] == [STATES.index("running"), T0_NS, T0_NS + 20 * S]


def test_an_end_that_nobody_saw_was_where_its_events_end(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    """A collector that started late found it gone: long after it was, for all that is known."""
    run = build.run("run-1")
    writer = build.writer(run, last_s=20)
    build.points(writer, "loss", [0.5] * 21)
    build.state(writer, "dead", {"exit_code": None, "signal": None, "unseen": True}, since_s=500)
    found = ask(cursor, now_s=1000)
    assert found["attempts"][0]["ended_ns"] == T0_NS + 20 * S
    assert seconds(found) == {"total_s": 20, "productive_s": 20}


def test_another_process_that_claims_a_rank_is_not_the_rank(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    build.points(build.writer(run, last_s=9), "loss", [0.5] * 10)
    rival = build.writer(run, opened_s=-50, host="elsewhere")
    build.points(rival, "loss", [0.5] * 100, steps=range(500, 600))
    build.event(run, rival, TWICE, {"text": "two claim rank 0", "rivals": [rival], "claims": []})
    (one,) = ask(cursor)["attempts"]
    assert (one["began_ns"], one["first_step"], one["last_step"]) == (T0_NS, 0, 9)
    (row,) = timeline(cursor, find_run(cursor, "run-1"))["ranks"]
    assert row["host"] == "host-a"


def test_a_run_that_nobody_has_logged_a_step_to(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run("run-1")
    assert ask(cursor, now_s=9)["goodput"]["fraction"] is None
    build.writer(run, world_size=2)
    found = ask(cursor, now_s=9)
    assert (found["attempts"][0]["state"], found["attempts"][0]["ended_ns"]) == ("running", None)
    assert seconds(found) == {"total_s": 9, "init_s": 9}


# -- the timeline -----------------------------------------------------------------------------------------


def states(row: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(STATES[state], (begin - T0_NS) / S, (end - T0_NS) / S) for state, begin, end in row["spans"]]


def test_the_timeline_shows_each_rank_from_the_attempts_beginning_until_now(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run("run-1")
    build.writer(run, 0, world_size=3, last_s=30)
    late = build.writer(run, 2, world_size=3, opened_s=5, host="host-b")
    build.state(late, "stalled", since_s=20)
    build.state(late, "dead", since_s=25)
    build.writer(run, 0, role="child")
    found = timeline(cursor, find_run(cursor, "run-1"), now_ns=T0_NS + 40 * S)
    assert (found["from_ns"], found["until_ns"]) == (T0_NS, T0_NS + 40 * S)
    assert found["states"] == list(STATES)
    assert [(row["rank"], row["attempt"], row["host"]) for row in found["ranks"]] == [
        (0, 1, "host-a"),
        (1, 1, None),
        (2, 1, "host-b"),
    ]
    assert [states(row) for row in found["ranks"]] == [
        [("running", 0, 40)],
        [("expected", 0, 40)],
        [("expected", 0, 5), ("running", 5, 20), ("stalled", 20, 25), ("dead", 25, 40)],
    ]


def test_the_newest_attempt_is_shown_or_all_each_up_to_the_next(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    restarted(build)
    run = find_run(cursor, "run-1")
    newest = timeline(cursor, run)
    assert newest == timeline(cursor, run, attempt=2)
    assert [row["attempt"] for row in newest["ranks"]] == [2, 2]
    # All have ended: a little more is shown, so that how they ended can be seen.
    assert newest["until_ns"] == T0_NS + 225 * S + round(0.03 * 75 * S)
    everything = timeline(cursor, run, attempt="all")
    assert [(row["rank"], row["attempt"]) for row in everything["ranks"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert states(everything["ranks"][2])[-1] == ("dead", 114.5, 150)
    assert timeline(cursor, run, attempt=7)["ranks"] == []


def test_a_rank_that_went_to_and_fro_has_few_spans_and_its_last_state(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run("run-1"))
    for second in range(1, 400):
        build.state(writer, ("running", "unreachable")[second % 2], since_s=second)
    (row,) = timeline(cursor, find_run(cursor, "run-1"), now_ns=T0_NS + 400 * S)["ranks"]
    assert 2 < len(row["spans"]) <= 64
    assert all(one[2] == next_[1] for one, next_ in pairwise(row["spans"]))
    assert (row["spans"][0][1], row["spans"][-1]) == (T0_NS, [3, T0_NS + 399 * S, T0_NS + 400 * S])


def test_a_rank_that_claims_an_immense_world_makes_no_immense_answer(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    build.writer(build.run("run-1"), 2**17 - 1, world_size=2**17)
    found = timeline(cursor, find_run(cursor, "run-1"), now_ns=T0_NS + S)
    assert len(found["ranks"]) == MAX_ROWS
    assert states(found["ranks"][-1]) == [("running", 0, 1)]


# -- every way to ask -------------------------------------------------------------------------------------


def test_what_the_api_answers_is_what_its_page_says_and_what_the_file_itself_tells(
    build: DatabaseBuilder, store: Store, tmp_path: Path
) -> None:
    restarted(build)
    settings = Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")
    with asking(create_app(ApiContext(store, StillLive(), settings)), "http://127.0.0.1:5570") as client:
        got = client.get("/api/runs/run-1/attempts").json()
        shown = client.get("/api/runs/run-1/timeline", params={"attempt": "all"}).json()
        refused = client.get("/api/runs/run-1/timeline", params={"attempt": "some"})
        missing = client.get("/api/runs/nobody/attempts")
    assert models.AttemptsAnswer.model_validate(got).model_dump() == got
    assert models.TimelineAnswer.model_validate(shown).model_dump(mode="json") == shown
    assert (refused.status_code, missing.status_code) == (400, 404)
    store.close()
    assert LocalReader(settings).attempts("run-1") == got


def test_the_command_shows_the_attempts_and_the_goodput(
    build: DatabaseBuilder,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    restarted(build)
    store.close()
    (tmp_path / "test.duckdb").rename(tmp_path / "allranks.duckdb")
    monkeypatch.setenv("ALLRANKS_HOME", str(tmp_path))
    monkeypatch.delenv("ALLRANKS_HTTP", raising=False)
    assert cli(["attempts", "run-1"]) == 0
    printed = capsys.readouterr().out
    assert "61–120" in printed
    assert "killed by SIGKILL" in printed
    goodput = "goodput 56.0 % of 4 min; lost: 20 s to the first steps, 5.0 s until failures were known"
    assert f"{goodput}, 35 s until the next attempt began, 39 s on steps done before" in printed
    assert cli(["attempts", "run-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["goodput"]["total_s"] == 225


def test_a_run_without_a_step_has_no_goodput_to_show() -> None:
    nothing = dict.fromkeys(("init_s", "stalled_s", "detection_s", "restart_s", "recomputation_s"), 0.0)
    goodput = {"fraction": None, "total_s": 12.0, "productive_s": 0.0, **nothing}
    assert "goodput: no step yet in 12 s" in str(view({"attempts": [], "goodput": goodput})[1])
