"""A spool that another writes is read as it grows: the same records in the same order, wherever it is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allranks_bus import records
from allranks_bus.errors import SpoolError
from allranks_bus.shipping import Shipment
from allranks_bus.spool import SpoolWriter
from allranks_bus.spool_follower import SpoolFollower
from allranks_bus.wire import Ack

_NAME = b"w" * 16


def _writer(root: Path, *, segment_bytes: int = 2000) -> SpoolWriter:
    return SpoolWriter(root, _NAME, lambda: b"opening", segment_bytes=segment_bytes)


def _follower(root: Path) -> SpoolFollower:
    return SpoolFollower(root / _NAME.hex())


def _read_on(follower: SpoolFollower, seq: int) -> tuple[int, list[bytes]]:
    """All records from `seq` on that have been seen, but for the openings; and the seq after them."""
    found: list[bytes] = []
    while True:
        count, body = follower.read(seq)
        if not count:
            return seq, found
        payloads = [body[begin:end] for begin, end in records.scan(body)]
        assert len(payloads) == count
        found += [payload for payload in payloads if payload != b"opening"]
        seq += count


def _look(follower: SpoolFollower) -> None:
    while follower.look():
        pass


def test_before_there_is_anything_there_is_nothing(tmp_path: Path) -> None:
    follower = _follower(tmp_path)
    assert not follower.look()
    assert (follower.base, follower.end, follower.read(0)) == (0, 0, (0, b""))
    assert not follower.is_there
    follower.directory.mkdir()
    (follower.directory / "lock").touch()
    assert not follower.look()
    assert follower.is_there


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(-1, 40), max_size=30))
def test_what_is_written_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    """A step is so many records written, or, below 0, a look."""
    root = tmp_path_factory.mktemp("spool")
    writer, follower = _writer(root), _follower(root)
    written: list[bytes] = []
    found: list[bytes] = []
    seq = 0
    for step in [*steps, -1]:
        for _ in range(step):
            payload = b"%d" % len(written) * 20
            assert writer.append(payload)
            written.append(payload)
        if step < 0:
            _look(follower)
            assert follower.end == writer.end
            seq, more = _read_on(follower, seq)
            found += more
    assert found == written
    writer.close()
    follower.close()


def test_half_a_record_is_waited_for(tmp_path: Path) -> None:
    writer, follower = _writer(tmp_path), _follower(tmp_path)
    writer.append(b"whole")
    (path,) = writer.directory.glob("*.seg")
    record = records.frame(b"cut")
    with open(path, "ab") as file:
        file.write(record[:6])
        file.flush()
        _look(follower)
        assert follower.end == 2
        file.write(record[6:])
    _look(follower)
    assert _read_on(follower, 2) == (3, [b"cut"])


def test_a_segment_that_could_not_be_begun_is_not_followed(tmp_path: Path) -> None:
    writer, follower = _writer(tmp_path), _follower(tmp_path)
    writer.append(b"first")
    (writer.directory / "00000000000000000002.seg").write_bytes(b"torn")
    _look(follower)
    writer.append(b"second")
    _look(follower)
    assert _read_on(follower, 0) == (3, [b"first", b"second"])


def test_whole_segments_are_released_and_never_the_one_that_is_written(tmp_path: Path) -> None:
    writer, follower = _writer(tmp_path), _follower(tmp_path)
    for _ in range(200):
        writer.append(b"x" * 100)
    _look(follower)
    follower.release(follower.end)
    assert len(list(writer.directory.glob("*.seg"))) == 1
    assert 0 < follower.base < follower.end == writer.end
    # The writer sees what has gone, and counts it no more.
    writer.release(follower.base)
    assert writer.held_bytes < 4000
    writer.append(b"goes on")
    _look(follower)
    assert _read_on(follower, follower.end - 1)[1] == [b"goes on"]


def test_it_is_shipped_like_any_log(tmp_path: Path) -> None:
    writer, follower = _writer(tmp_path), _follower(tmp_path)
    for number in range(100):
        writer.append(b"%d" % number * 30)
    _look(follower)
    shipment = Shipment(follower)
    shipped = 0
    while (parcel := shipment.next(0.0)) is not None:
        assert (parcel.first_seq, parcel.base) == (shipped, follower.base)
        shipment.sent_one(parcel, 0.0)
        shipped += parcel.count
        shipment.on_ack(Ack(shipped, b"c" * 16, 0), 0.0)
    assert shipment.is_done
    assert shipped == writer.end


def test_a_spool_that_somebody_else_has_drained_is_an_error_to_read(tmp_path: Path) -> None:
    writer, follower = _writer(tmp_path), _follower(tmp_path)
    writer.append(b"x")
    _look(follower)
    writer.remove()
    with pytest.raises(SpoolError):
        follower.read(0)
