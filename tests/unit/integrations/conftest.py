"""What all tests of integrations share: a fresh SDK for each."""

from __future__ import annotations

from tests.unit.sdk.conftest import sdk_home

__all__ = ["sdk_home"]
