"""What scripts take from `wandb.util`."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def generate_id(length: int = 8) -> str:
    """A random id for a run: `length` digits and small letters."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
