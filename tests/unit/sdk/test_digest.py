"""The digest that run ids come from: the same whichever of Python's modules makes it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from allranks._digest import sha256


@given(st.binary())
def test_it_is_that_of_hashlib(data: bytes) -> None:
    assert sha256(data) == hashlib.sha256(data).digest()


def test_it_does_not_load_openssl() -> None:
    program = "import sys; from allranks._digest import sha256; sha256(b'x'); print('_hashlib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"
