"""Names of stored files: none of them leads out of its folder."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from allranks_bus.errors import BadFileName
from allranks_bus.files.names import check_file_name, transfer_id

_PARTS = st.sampled_from(["a", "..", ".", "", " ", "\\", "\0", "\n", "…", "\x85", "\x7f", "...", "a b", "\udc80"])


@pytest.mark.parametrize(
    "name",
    ["a", "a/b/c.ckpt", "…/ä", "...", "..a", "a b", "a:b", "~", "epoch=1-step=2.ckpt", "a" * 1024, "é" * 512, "-rf"],
)
def test_a_relative_path_is_a_name(name: str) -> None:
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "./a", "a/./b", "a\\b", "a\0b", "a\nb",
        "\x1b[2J", "\x7f", "\x9b", "\udcff", "a" * 1025, "é" * 513,
    ],
)  # fmt: skip
def test_what_leads_out_or_cannot_be_shown_is_none(name: str) -> None:
    with pytest.raises(BadFileName) as caught:
        check_file_name(name)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@given(st.lists(_PARTS).map("/".join) | st.text())
@example("a/b")
def test_a_name_stays_inside_its_folder(name: str) -> None:
    """And is the one spelling of its path."""
    try:
        check_file_name(name)
    except BadFileName:
        return
    path = PurePosixPath(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert str(path) == name


def test_a_transfer_is_one_state_of_one_file() -> None:
    """Whatever of it changes makes another one; a host's name may be no UTF-8."""
    state = ("run", "host", "a", 10, 20, 30)
    others = [("r", *state[1:]), ("run", "h", *state[2:]), ("run", "host", "b", 10, 20, 30)]
    others += [
        (*state[:3], 11, 20, 30),
        (*state[:3], 10, 21, 30),
        (*state[:3], 10, 20, 31),
        ("run", "\udc80", "a", 1, 2, 3),
    ]
    assert transfer_id(*state) == transfer_id(*state)
    assert len({transfer_id(*state), *(transfer_id(*other) for other in others)}) == 1 + len(others)
