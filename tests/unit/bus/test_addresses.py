"""Addresses: what is one, what is none, and that ZeroMQ takes every one that is."""

from __future__ import annotations

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AddressError


@pytest.mark.parametrize(
    ("text", "data", "control"),
    [
        ("tcp://127.0.0.1:5571", "tcp://127.0.0.1:5571", "tcp://127.0.0.1:5572"),
        ("tcp://localhost:1", "tcp://localhost:1", "tcp://localhost:2"),
        ("tcp://node-1.cluster_a.example:65534", "tcp://node-1.cluster_a.example:65534", None),
        ("tcp://10.0.0.7:5571/", "tcp://10.0.0.7:5571", "tcp://10.0.0.7:5572"),
        ("  tcp://h:5571\n", "tcp://h:5571", "tcp://h:5572"),
        ("tcp://h:05571", "tcp://h:5571", "tcp://h:5572"),
        ("tcp://[::1]:5571", "tcp://[::1]:5571", "tcp://[::1]:5572"),
        ("tcp://[fe80::1%eth0]:5571", "tcp://[fe80::1%eth0]:5571", "tcp://[fe80::1%eth0]:5572"),
        ("tcp://[::ffff:10.0.0.1]:5571", "tcp://[::ffff:10.0.0.1]:5571", None),
        ("ipc:///run/allranks/data", "ipc:///run/allranks/data", "ipc:///run/allranks/data.control"),
        ("ipc:///tmp/with blank/ä", "ipc:///tmp/with blank/ä", "ipc:///tmp/with blank/ä.control"),
        ("ipc:///" + "x" * 98, "ipc:///" + "x" * 98, "ipc:///" + "x" * 98 + ".control"),
    ],
)
def test_an_address_is_understood(text: str, data: str, control: str | None) -> None:
    """Both endpoints follow from it, it parses to itself, and ZeroMQ connects to it."""
    address = parse_address(text)
    assert address.data == str(address) == data
    assert control is None or address.control == control
    assert parse_address(str(address)) == address
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for endpoint in (address.data, address.control):
            with context.socket(zmq.PUSH) as push:
                push.set(zmq.LINGER, 0)
                push.set(zmq.IPV6, int("[" in endpoint))
                push.connect(endpoint)
    finally:
        context.term()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no scheme"), ("localhost:5571", "no scheme"), ("tcp:/h:1", "no scheme"), ("5571", "no scheme"),
        ("http://h:5571", "'http' is no transport"), ("TCP://h:5571", "'TCP'"), ("://h:1", "'' is no transport"),
        ("inproc://a", "'inproc'"), ("udp://h:1", "'udp'"),
        ("tcp://", "a host and"), ("tcp://h", "a host and"), ("tcp://:5571", "a host and"),
        ("tcp://h:", "a host and"), ("tcp://h:x", "a host and"), ("tcp://h:-1", "a host and"),
        ("tcp://h:1:2", "a host and"), ("tcp://*:5571", "a host and"), ("tcp://h:*", "a host and"),
        ("tcp://::1:5571", "a host and"), ("tcp://[::1]", "a host and"), ("tcp://[]:1", "a host and"),
        ("tcp://[:::]:1", "a host and"), ("tcp://[1.2.3.4]:1", "a host and"), ("tcp://[::1:1", "a host and"),
        ("tcp://a b:1", "a host and"), ("tcp://a/b:1", "a host and"), ("tcp://h:1/path", "a host"),
        ("tcp://u@h:1", "a host and"), ("tcp://-h:1", "a host and"), ("tcp://ä:1", "a host and"),
        ("tcp://h:٥٥٧١", "a host and"), ("tcp://eth0;h:1", "a host and"), ("tcp://h\n:1", "a host"),
        ("tcp://h:0", "1 to 65534"), ("tcp://h:65535", "1 to 65534"), ("tcp://h:99999", "1 to 65534"),
        ("tcp://h:" + "9" * 5000, "1 to 65534"),
        ("ipc://", "absolute"), ("ipc://relative", "absolute"), ("ipc://@abstract", "absolute"),
        ("ipc:///", "name a file"), ("ipc:///dir/", "name a file"), ("ipc:///a\0b", "name a file"),
        ("ipc:///a\nb", "name a file"), ("ipc:///a\udcffb", "name a file"),
        ("ipc:///" + "x" * 99, "at most 99 bytes"), ("ipc:///" + "ä" * 50, "at most 99 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_told_in_one_line(text: str, problem: str) -> None:
    """With what came, what is wrong with it, and an example."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    told = str(caught.value)
    assert problem in told
    assert "for example tcp://127.0.0.1:5571" in told
    assert len(told.splitlines()) == 1


@given(st.text())
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    """Nothing else."""
    for prefix in ("", "tcp://", "tcp://[", "ipc:///"):
        try:
            address = parse_address(prefix + text)
        except AddressError:
            continue
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("tcp://127.0.0.1:1", True), ("tcp://127.8.9.1:1", True), ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True),
        ("ipc:///a", True),
        ("tcp://10.0.0.1:1", False), ("tcp://127.0.0.1.example.org:1", False), ("tcp://localhost.example:1", False),
        ("tcp://[::2]:1", False), ("tcp://0.0.0.0:1", False), ("tcp://[::]:1", False), ("tcp://host:1", False),
    ],
)  # fmt: skip
def test_loopback_is_told(text: str, is_loopback: bool) -> None:
    """What only this machine can reach needs no keys."""
    assert parse_address(text).is_loopback is is_loopback


def test_an_address_may_be_made_by_hand() -> None:
    """By a collector that knows its parts."""
    assert Address("tcp", host="h", port=7).control == "tcp://h:8"
