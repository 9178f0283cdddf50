"""Last words: a console's end tells a cause from a follower, as the programs of the field say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.last_words import LINES, SPAN_NS, TABLE, read, without_source
from allranks_collector.verdict import KINDS

S = 10**9

SEGFAULT = """\
step 41
Fatal Python error: Segmentation fault

Current thread 0x00007f7fd3a3f740 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/u/train.py", line 3 in <module>"""
WATCHDOG = """\
[rank3]:[E1120 13:02:11.533171424 ProcessGroupNCCL.cpp:616] [Rank 3] Watchdog caught collective operation timeout: \
WorkNCCL(SeqNum=5, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600012 milliseconds
terminate called after throwing an instance of 'c10::DistBackendError'
Fatal Python error: Aborted"""
CUDA = """\
[rank5]: Traceback (most recent call last):
[rank5]:   File "train.py", line 88, in <module>
[rank5]:     loss.backward()
[rank5]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 5 has 79 GiB"""
GLOO = """\
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    dist.all_reduce(x)
RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:18423"""
OWN = """\
epoch 3
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    raise ValueError("the loss is not a number")
ValueError: the loss is not a number
exiting"""
ASSERT = "python: kernel.cpp:41: void f(int): Assertion `n > 0' failed."
TERMINATE = "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no kernel image\nAborted"
SIGNALLED = """\
Traceback (most recent call last):
  File "agent.py", line 1, in run
torch.distributed.elastic.multiprocessing.api.SignalException: Process 77 got signal: 15"""


def words(text: str) -> tuple[str, str] | None:
    found = read([(number * S // 100, line) for number, line in enumerate(text.split("\n"))])
    return None if found is None else (found.kind, found.line)


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        (SEGFAULT, "crash", "Fatal Python error: Segmentation fault"),
        (WATCHDOG, "collective", ""),
        (CUDA, "device-oom", ""),
        (GLOO, "connection", ""),
        (OWN, "exception", "ValueError: the loss is not a number"),
        (ASSERT, "crash", ASSERT),
        (TERMINATE, "abort", ""),
        (SIGNALLED, "terminated", ""),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "oom", ""),
        ("free(): invalid pointer", "crash", ""),
        ("Killed", "oom", "Killed"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "oom", ""),
        ("BrokenPipeError: [Errno 32] Broken pipe", "connection", ""),
        ("OSError: [Errno 28] No space left on device: '/scratch/ckpt.pt'", "disk-full", ""),
    ],
)
def test_what_programs_say_at_their_end_is_understood(text: str, kind: str, line: str) -> None:
    found = words(text)
    assert found is not None
    assert found[0] == kind
    assert not line or found[1] == line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "step 41, loss 0.5",
        "no worker was Killed today",
        "note: Traceback (most recent call last):",
        "Traceback (most recent call last):\n  File 'x'",
    ],
)
def test_other_words_say_nothing(text: str) -> None:
    assert words(text) is None


def test_an_exception_is_told_with_its_type_and_message() -> None:
    found = read([(number, line) for number, line in enumerate(OWN.split("\n"))])
    assert found is not None
    assert (found.type, found.message, found.time_ns) == ("ValueError", "the loss is not a number", 4)


def test_a_trouble_that_was_over_long_before_the_end_is_none_of_it() -> None:
    assert read([(0, "Connection reset by peer"), (SPAN_NS + S, "step 90")]) is None
    assert read([(0, "Connection reset by peer"), *((1, f"step {step}") for step in range(LINES))]) is None


@given(st.lists(st.tuples(st.integers(0, 2**62), st.text())))
def test_whatever_is_printed_is_read(lines: list[tuple[int, str]]) -> None:
    found = read(lines)
    assert found is None or found.time_ns in {time_ns for time_ns, _ in lines}


def test_the_table_names_kinds_of_the_verdict() -> None:
    assert {kind for kind, _ in TABLE} <= {kind.name for kind in KINDS}


@pytest.mark.parametrize(
    ("line", "short"),
    [
        (GLOO.rsplit("\n", 1)[1], "RuntimeError: Connection closed by peer [10.0.0.1]:18423"),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 704", "unexpected pos 704"),
        ("ValueError: [0, 1] is no range", "ValueError: [0, 1] is no range"),
    ],
)
def test_where_in_a_librarys_sources_an_error_arose_is_left_out(line: str, short: str) -> None:
    assert without_source(line) == short
