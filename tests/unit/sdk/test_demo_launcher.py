"""The demo's launcher and options: what a rank is told, and how the job ends when a rank does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from allranks.demo import __main__ as launcher
from allranks.demo import options
from allranks.demo.options import Options, Place, parse


def python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_rank_gets_what_torchrun_sets_and_nothing_of_allranks() -> None:
    env = launcher.rank_env({"PATH": "p"}, rank=2, ranks=4, port=1234)
    assert env == {
        "PATH": "p",
        "OMP_NUM_THREADS": "1",
        "RANK": "2",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "2",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1234",
    }


def test_threads_that_the_user_chose_are_kept() -> None:
    assert launcher.rank_env({"OMP_NUM_THREADS": "8"}, 0, 1, 1)["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exited with 1"),
        (-9, "was killed by SIGKILL"),
        (-64, "was killed by SIGRTMAX"),
        (-99, "was killed by signal 99"),
    ],
)
def test_exits_in_words(code: int, words: str) -> None:
    assert launcher.describe_exit(code) == words


def test_all_well() -> None:
    assert launcher.supervise([python("pass"), python("pass")]) == 0


def test_one_failure_ends_who_does_not_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "GRACE_S", 0.1)
    ranks = [python("import time; time.sleep(60)"), python("raise SystemExit(3)")]
    assert launcher.supervise(ranks) == 1
    assert [rank.poll() for rank in ranks] == [-15, 3]
    assert "exited with 3" in capfd.readouterr().err


def test_who_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "TERM_S", 0.2)
    deaf = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    with deaf.stdout:
        deaf.stdout.readline()
        launcher.end([deaf])
    assert deaf.poll() == -9


@pytest.mark.parametrize(
    "arguments", [["--ranks", "0"], ["--kill-rank", "4"], ["--steps", "0"], ["--seconds", "nan"]]
)
def test_wrong_usage_is_found_before_any_rank_starts(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launcher.main(arguments)
    assert caught.value.code == 2


def test_ranks_get_all_options_but_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[tuple[int, list[str]]] = []

    def launch(count: int, arguments: list[str]) -> int:
        launched.append((count, arguments))
        return 0

    monkeypatch.setattr(launcher, "_launch", launch)
    assert launcher.main(["--steps", "5", "-n", "2", "--kill-rank", "1"]) == 0
    assert launched == [(2, ["--steps", "5", "--kill-rank", "1"])]


def test_options_have_their_defaults() -> None:
    assert parse([], "x") == Options()


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "NEEDS", {"no_such_module": "no-such-package", "sys": "sys"})
    assert options.missing_packages() == 'the demo needs no-such-package: pip install "allranks[demo]"'


def test_a_process_that_nobody_launched_is_alone() -> None:
    assert Place.from_env({}) == Place(0, 1, "127.0.0.1", 0)


def test_under_torchrun_the_ranks_meet_on_the_next_port() -> None:
    env = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "29500"}
    assert Place.from_env(env).port == 29500
    assert Place.from_env(env | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).port == 29501


def test_a_rank_outside_of_its_world_is_refused() -> None:
    with pytest.raises(ValueError, match="RANK must be"):
        Place.from_env({"RANK": "2", "WORLD_SIZE": "2"})
