"""Sizes that the wire and the spool share, in a module that loads nothing."""

from __future__ import annotations

WRITER_ID_BYTES = 16
MAX_BATCH_RECORDS = 65_536
# The largest trainings are of this order; who claims a larger world is mistaken, and answers name each rank of it.
MAX_WORLD_SIZE = 2**17
# Names of sections of one process, and the length of one.
MAX_SECTIONS = 64
MAX_SECTION_CHARS = 100
# Of what a rank says of its surroundings, as JSON.
MAX_SURROUNDINGS_BYTES = 64 * 1024
