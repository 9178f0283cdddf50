"""Sizes that the wire and the spool share, in a module that loads nothing."""

from __future__ import annotations

WRITER_ID_BYTES = 16
MAX_BATCH_RECORDS = 65_536
