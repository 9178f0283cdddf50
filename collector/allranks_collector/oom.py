"""Who was killed for want of memory: the counts of the ranks' control groups, as far as they are seen or told.

The count is of the group, not of the process: it is evidence beside a SIGKILL, and none alone.
"""

from __future__ import annotations

from allranks_bus.cgroups import find_oom_file, read_oom_kills


class OomWatch:
    """The kernel's counts of kills in each writer's group: those that can be read from here, and those in beats."""

    def __init__(self) -> None:
        # By writer: the file and the count at the beginning; and the newest count of its beats.
        self._files: dict[int, tuple[str, int]] = {}
        self._told: dict[int, int] = {}

    def watch(self, writer: int, pid: int) -> None:
        """Begins to count for a writer whose process can be seen from here."""
        path = find_oom_file(pid)
        count = None if path is None else read_oom_kills(path)
        if path is not None and count is not None:
            self._files[writer] = (path, count)

    def look(self, writer: int) -> int:
        """How many have been killed in its group since `watch`; 0 where that cannot be known."""
        path, before = self._files.get(writer, ("", 0))
        now = read_oom_kills(path) if path else None
        return 0 if now is None else max(0, now - before)

    def hear(self, writer: int, count: object) -> int:
        """Takes in the count in a beat; how many have been killed since the one before it."""
        if type(count) is not int or count < 0:
            return 0
        before = self._told.get(writer, count)
        self._told[writer] = count
        return max(0, count - before)

    def forget(self, writer: int) -> None:
        """Drops what is known of a writer that is watched no longer."""
        self._files.pop(writer, None)
        self._told.pop(writer, None)
