"""What differs between ranks: who has what, the most telling first, and readable for any number of ranks."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector import queries
from allranks_collector.differences import (
    Group,
    differences,
    first_divergence,
    grouped,
    is_usual,
    sentence,
)
from allranks_collector.folding import ranks_text
from allranks_collector.queries.differences import list_differences
from allranks_collector.testing import DatabaseBuilder

NAN = math.nan


def told(ranks: int, **odd: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What so many ranks say, all alike but for those given as `r17=…`."""
    usual = {"git": {"revision": "aaa"}, "packages": {"torch": "2.4.0"}, "env": {"NCCL_DEBUG": "INFO"}}
    return {rank: {**usual, **odd.get(f"r{rank}", {})} for rank in range(ranks)}


def hosts(ranks: int, each: int = 8) -> dict[int, str]:
    return {rank: f"node-{rank // each}" for rank in range(ranks)}


def texts(*arguments: Any) -> dict[str, str]:
    return {found.name: found.text for found in differences(*arguments)}


def test_ranks_that_are_alike_do_not_differ() -> None:
    assert differences(told(64), {}, dict.fromkeys(range(64), 5), hosts(64)) == []


def test_who_has_another_version_is_named() -> None:
    odd: dict[str, Any] = {"packages": {"torch": "2.3.1"}}
    found = texts(told(64, r17=odd, r41=odd), {}, {}, hosts(64))
    assert found == {"torch": "62 ranks have 2.4.0 · ranks 17, 41 have 2.3.1"}


def test_the_most_telling_comes_first() -> None:
    odd = {"env": {"NCCL_DEBUG": "WARN"}, "git": {"revision": "bbb"}, "packages": {"torch": "2.3.1"}}
    found = differences(told(4, r3=odd), {0: {"lr": 1}, 3: {"lr": 2}}, {0: 0, 1: 0, 3: 4_000_000_000}, hosts(4))
    assert [one.section.name for one in found] == ["git", "packages", "clock", "env", "config"]


def test_what_is_another_on_every_rank_by_nature_is_left_out() -> None:
    env = {
        rank: {"env": {"RANK": str(rank), "CUDA_VISIBLE_DEVICES": str(rank), "TORCHELASTIC_ERROR_FILE": f"/{rank}"}}
        for rank in range(4)
    }
    config = {rank: {"local_rank": rank, "train": {"device": f"cuda:{rank}"}} for rank in range(4)}
    assert differences(env, config, {}, hosts(4)) == []


def test_what_each_rank_or_host_has_its_own_of_is_said_so_and_comes_last() -> None:
    said = {
        rank: {"env": {"A": f"/tmp/{rank}", "B": f"eth{rank // 8}", "NCCL_DEBUG": str(rank == 9)}}
        for rank in range(32)
    }
    found = differences(said, {}, {}, hosts(32))
    assert [(one.name, one.text) for one in found] == [
        ("NCCL_DEBUG", "31 ranks have False · rank 9 has True"),
        ("A", "each rank has its own"),
        ("B", "each host has its own"),
    ]


def test_a_variable_that_a_rank_lacks_counts_and_a_package_does_not() -> None:
    found = texts(told(4, r2={"env": {}, "packages": {}}), {}, {}, hosts(4))
    assert found == {"NCCL_DEBUG": "3 ranks have INFO · rank 2 does not have it"}


def test_a_config_that_rank_0_alone_tells_does_not_differ() -> None:
    assert differences({}, {0: {"lr": 1}, 1: {}}, {}, hosts(2)) == []


def test_configs_are_compared_entry_by_entry_however_deep() -> None:
    config = {rank: {"optimizer": {"lr": 0.1 if rank != 2 else 0.2, "name": "adam"}} for rank in range(4)}
    assert texts({}, config, {}, hosts(4)) == {"optimizer/lr": "3 ranks have 0.1 · rank 2 has 0.2"}


def test_all_ranks_of_a_node_are_said_to_be_that_node() -> None:
    odd: dict[str, Any] = {"packages": {"torch": "2.3.1"}}
    found = texts(told(32, **{f"r{rank}": odd for rank in range(8, 16)}), {}, {}, hosts(32))
    assert found == {"torch": "24 ranks have 2.4.0 · ranks 8-15 (node-1) have 2.3.1"}


def test_a_clock_beyond_a_second_is_told() -> None:
    offsets = {**{rank: rank * 1000 for rank in range(8)}, 5: -300_000_000_000}
    assert texts({}, {}, offsets, hosts(8)) == {"time": "7 ranks have the same time · rank 5 has a clock 300 s ahead"}


def test_odd_entries_are_compared_all_the_same() -> None:
    said: dict[int, dict[str, Any]] = {0: {"git": "no mapping", "env": {"A": ""}}, 1: {"env": {"A": None}}}
    assert texts(said, {}, {}, {}) == {"A": "rank 0 has '' · rank 1 has null"}


@pytest.mark.parametrize("ranks", [2, 64, 1024])
def test_a_sentence_is_readable_for_any_number_of_ranks(ranks: int) -> None:
    groups = grouped({rank: rank % 7 if rank % 3 else "x" * 500 for rank in range(ranks)}, hosts(ranks))
    assert sum(len(group.ranks) for group in groups) == ranks
    assert len(sentence(groups)) < 1200


def test_without_a_majority_all_are_named() -> None:
    assert sentence((Group("a", (0, 1)), Group("b", (2, 3)))) == "ranks 0-1 have a · ranks 2-3 have b"


@pytest.mark.parametrize(
    "key", ["lr", "train/lr", "lr-AdamW/pg1", "optim.learning_rate", "loss_scale", "lr_0", "epoch"]
)
def test_usual_names(key: str) -> None:
    assert is_usual(key)


@pytest.mark.parametrize("key", ["loss", "lrx", "scale", "train/loss", "my_lr_scheduler"])
def test_names_that_are_not(key: str) -> None:
    assert not is_usual(key)


def test_the_first_step_of_divergence_is_found() -> None:
    steps = {step: {rank: float(step + (rank == 3 and step >= 40)) for rank in range(8)} for step in range(100)}
    found = first_divergence("lr", steps, hosts(8), tolerance=1e-6)
    assert found is not None
    assert (found.step, found.text) == (40, "7 ranks have 40.0 · rank 3 has 41.0")


def test_what_was_told_to_agree_is_compared_exactly() -> None:
    steps: dict[int, dict[int, Any]] = {0: {0: 1, 1: 1.0}, 1: {0: 2**53, 1: 2**53 + 1}}
    found = first_divergence("hash", steps, {})
    assert found is not None
    assert found.step == 1


@given(
    st.dictionaries(st.integers(0, 2000), st.one_of(st.integers(0, 3), st.sampled_from(["a", "1", True, None, NAN])))
)
def test_groups_are_the_ranks_each_once_the_largest_first(values: dict[int, Any]) -> None:
    groups = grouped(values, {})
    assert sorted(rank for group in groups for rank in group.ranks) == sorted(values)
    sizes = [len(group.ranks) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    for group in groups:
        assert list(group.ranks) == sorted(group.ranks)
        assert len({repr(values[rank]) for rank in group.ranks}) == 1
    assert queries.parse_ranks(ranks_text(sorted(values))) == (frozenset(values) if values else None)


@given(
    st.dictionaries(st.integers(0, 63), st.floats(1e-9, 1e9), min_size=2),
    st.integers(0, 9),
    st.sampled_from([0.0, 1e-9, 1e-3]),
)
def test_metrics_diverge_exactly_where_two_are_further_apart_than_the_tolerance(
    values: dict[int, float], step: int, shift: float
) -> None:
    base = next(iter(values.values()))
    alike = dict.fromkeys(values, base)
    odd = max(values)
    found = first_divergence("lr", {step: alike, step + 1: {**alike, odd: base * (1 + shift)}}, {}, tolerance=1e-6)
    assert (found is None) == (shift < 1e-6)
    if found is not None:
        assert found.step == step + 1
        assert (odd,) in [group.ranks for group in found.groups]


# -- from the database ------------------------------------------------------------------------------------


def of_run(build: DatabaseBuilder, **arguments: Any) -> dict[str, Any]:
    with build.store.cursor() as cursor:
        return list_differences(cursor, queries.find_run(cursor, "run-1"), **arguments)


def filled(build: DatabaseBuilder, ranks: int = 4) -> tuple[int, list[int]]:
    run = build.run(attempts=2)
    build.writer(run, 0, attempt=1)
    return run, [build.writer(run, rank, attempt=2, host=f"node-{rank // 2}") for rank in range(ranks)]


def test_a_run_that_said_nothing_differs_in_nothing(build: DatabaseBuilder) -> None:
    filled(build)
    assert of_run(build) == {
        "attempt": 2, "ranks": 4, "told": 0, "differences": [], "diverged": [], "compared": [],
    }  # fmt: skip


def test_what_ranks_said_last_counts(build: DatabaseBuilder) -> None:
    run, writers = filled(build)
    for rank, writer in enumerate(writers):
        build.surroundings(writer, {"env": {"A": "old"}})
        build.surroundings(writer, {"env": {"A": "1" if rank != 2 else "2"}})
        build.entry("config", run, writer, "lr", 1)
        build.entry("config", run, writer, "lr", 2 if rank != 3 else 3, second=1)
    found = of_run(build)
    assert found["told"] == 4
    assert [(one["section"], one["name"], one["text"]) for one in found["differences"]] == [
        ("env", "A", "3 ranks have 1 · rank 2 has 2"),
        ("config", "lr", "3 ranks have 2 · rank 3 has 3"),
    ]
    assert found["differences"][0]["groups"][1] == {"value": "2", "count": 1, "ranks": "2", "hosts": []}


def test_values_that_diverge_are_found_with_their_step(build: DatabaseBuilder) -> None:
    _, writers = filled(build)
    for rank, writer in enumerate(writers):
        build.points(writer, "lr", [0.1, 0.1 * (1 + 1e-9 * rank), 0.2 if rank == 1 else 0.1, 0.3])
        build.points(writer, "loss", [float(rank)] * 3)
        for step in range(3):
            value = "same" if step < 2 or rank != 3 else "other"
            build.object(writer, "agree/hash", {"_type": "agree", "value": value}, step=step)
    found = of_run(build)
    assert found["compared"] == ["hash", "lr"]
    assert [(one["name"], one["kind"], one["step"], one["text"]) for one in found["diverged"]] == [
        ("hash", "agree", 2, "3 ranks have same · rank 3 has other"),
        ("lr", "metric", 2, "3 ranks have 0.1 · rank 1 has 0.2"),
    ]


def test_a_rank_whose_lr_is_no_number_diverges(build: DatabaseBuilder) -> None:
    _, writers = filled(build)
    for rank, writer in enumerate(writers):
        build.points(writer, "lr", [0.1, NAN if rank == 1 else 0.1])
    assert [one["text"] for one in of_run(build)["diverged"]] == ["3 ranks have 0.1 · rank 1 has NaN"]


def test_of_two_values_at_one_step_the_last_counts(build: DatabaseBuilder) -> None:
    _, writers = filled(build)
    for rank, writer in enumerate(writers):
        build.points(writer, "lr", [0.5 + rank, 0.1], steps=[7, 7])
    assert of_run(build)["diverged"] == []


def test_the_clocks_of_writers_are_compared(build: DatabaseBuilder) -> None:
    _, writers = filled(build)
    with build.store.transaction() as connection:
        for rank, writer in enumerate(writers):
            connection.execute("INSERT INTO clocks VALUES (?, ?)", [writer, 0 if rank else 300_000_000_000])
    (found,) = of_run(build)["differences"]
    assert found["text"] == "3 ranks have the same time · rank 0 has a clock 300 s behind"


def test_another_attempt_can_be_asked_for(build: DatabaseBuilder) -> None:
    filled(build)
    assert of_run(build, attempt=1)["ranks"] == 1
