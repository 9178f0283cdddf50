"""Frameworks are trained with as scenarios are run: in a home of their own, and nothing outlives a test."""

from __future__ import annotations

from tests.scenarios.conftest import home

__all__ = ["home"]
