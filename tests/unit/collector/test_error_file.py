"""An error file of torchelastic is understood as an exception, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.error_file import parse


def test_what_record_writes_is_an_exception() -> None:
    told = {"message": "ValueError: no\nat all", "extraInfo": {"py_callstack": "Traceback …", "timestamp": "17"}}
    assert parse(json.dumps({"message": told}).encode()) == {
        "type": "ValueError",
        "message": "no\nat all",
        "traceback": "Traceback …",
    }


def test_what_torch_itself_writes_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.errors import record

    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))

    @record
    def main() -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        main()
    found = parse(path.read_bytes())
    assert found is not None
    assert (found["type"], found["message"]) == ("ConnectionResetError", "[Errno 104] Connection reset by peer")
    assert "in main" in found["traceback"]


@pytest.mark.parametrize(
    ("message", "type_", "text"),
    [("Signal 11 (SIGSEGV) received", "error", "Signal 11 (SIGSEGV) received"), ("KeyboardInterrupt", "", "")],
)
def test_a_plain_text_is_a_message(message: str, type_: str, text: str) -> None:
    assert parse(json.dumps({"message": message}).encode()) == {
        "type": type_ or message,
        "message": text,
        "traceback": "",
    }


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"message": 3}', b'{"message": {"message": ""}}', b"[" * 50_000]
)
def test_what_tells_of_nothing_is_none(content: bytes) -> None:
    assert parse(content) is None


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=9)
)
def test_any_json_is_taken_and_bounded(told: object) -> None:
    found = parse(json.dumps({"message": told}).encode())
    assert found is None or all(len(text) <= 16_000 for text in found.values())
