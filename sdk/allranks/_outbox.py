"""The outbox of a run's files, as a training process uses it. Loaded once there are any."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

from allranks._place import RunPlace
from allranks._warnings import warn_once
from allranks_bus.collector_finder import OFFLINE
from allranks_bus.files import outbox
from allranks_bus.files.launch import ensure_shipper
from allranks_bus.files.outbox import About, outbox_path
from allranks_bus.files.outbox_ledger import Flush, Flushed, News, Policy, Save, User, want
from allranks_bus.files.search import Unfit, expand, folder_of

_POLL_S = 0.01
# While a flush is waited for, the process that ships is looked for this often: it may have been killed.
_ENSURE_S = 0.5
_TOKEN_BYTES = 8


class OutboxUser:
    """This process's use of the outbox for the files of a run, which is made if need be.

    Raises:
        OSError: it cannot be made, or written to.
    """

    def __init__(self, place: RunPlace) -> None:
        about = About(
            run=place.run,
            project=place.project,
            launch=place.launch,
            host=place.host,
            folder=str(place.directory),
            destination=place.destination,
        )
        self._place = place
        self._about = about
        self._directory = outbox_path(place.spool_root, about)
        self._user = User(place.writer.hex(), place.rank, place.launch)
        self._is_known = False
        self._saves: dict[Save, None] = {}
        outbox.join(self._directory, about)
        self._news = News(self._directory)

    def save(
        self, pattern: str | os.PathLike[str], base_path: str | os.PathLike[str] | None, policy: str
    ) -> list[str]:
        """Notes what is to be saved; the names of what there is of it. Says what is wrong."""
        try:
            text, folder = os.fsdecode(pattern), None if base_path is None else os.fsdecode(base_path)
        except TypeError:
            warn_once("save:type", f"save({pattern!r:.80}): a path or a pattern is one text; nothing is saved")
            return []
        whole, base, problem = _read_pattern(text, folder, policy, self._place.directory)
        if problem:
            warn_once(f"save:{text}", f"save({text!r}): {problem}; nothing of it is saved")
            return []
        names: list[str] = []
        has_unfit = False
        for finding in expand(whole, base):
            if isinstance(finding, Unfit):
                has_unfit = True
                warn_once(f"save:{finding.path}", f"save({text!r}): {finding.problem}")
            else:
                names.append(finding.name)
        if not (names or has_unfit):
            warn_once(f"save:{text}", f"save({text!r}): {_why_nothing(Path(text))}")
        self._introduce()
        save = Save(whole, base, Policy(policy), self._user)
        # A program may ask for the same in each of a million steps.
        if save not in self._saves or save.policy is Policy.NOW:
            want(self._directory, save)
            self._saves[save] = None
        return names

    def look(self, *, has_content: bool) -> None:
        """Sees to it that somebody sends what there is, and passes on what that one has to say.

        Args:
            has_content: whether there is anything in the run's directory.
        """
        self._hear()
        if has_content or self._saves:
            self._introduce()
            self._ensure_shipper()

    def flush(self, deadline: float, *, has_content: bool) -> bool:
        """Waits until all is stored, but not beyond `deadline`; True where nothing is left to wait for."""
        if not (has_content or self._saves):
            return True
        self._introduce()
        token = os.urandom(_TOKEN_BYTES).hex()
        want(self._directory, Flush(token, self._user.writer, os.getpid()))
        if self._place.destination == OFFLINE:
            return True
        ensure_at = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= ensure_at:
                ensure_at = now + _ENSURE_S
                self._ensure_shipper()
            for flushed in self._hear():
                if flushed.token == token:
                    return not flushed.left
            time.sleep(_POLL_S)
        return False

    def close(self, *, has_content: bool) -> None:
        """Ends the use; an outbox in which there was never anything goes with it."""
        outbox.leave(self._directory)
        if not (has_content or self._saves):
            outbox.remove_unused(self._directory)

    def abandon(self) -> None:
        """In a forked child: lets go of what is the parent's."""
        outbox.abandon(self._directory)

    def _introduce(self) -> None:
        """Has the outbox know this process, and what it wants; also where that has been removed meanwhile.

        Whoever reads all files of a home in this process closes `users` too, and ends its lock: then nobody seems to
        use the outbox.
        """
        if not self._directory.exists():
            outbox.leave(self._directory)
            outbox.join(self._directory, self._about)
            self._news = News(self._directory)
            for save in self._saves:
                want(self._directory, save)
            self._is_known = False
        if not self._is_known:
            want(self._directory, self._user)
            self._is_known = True

    def _ensure_shipper(self) -> None:
        if self._place.destination != OFFLINE:
            ensure_shipper(self._directory, self._place.env)

    def _hear(self) -> list[Flushed]:
        """Passes on what there is to be said of this process's files; the flushes that are done."""
        flushes: list[Flushed] = []
        for news in self._news.read():
            if isinstance(news, Flushed):
                flushes.append(news)
            elif news.writer == self._user.writer:
                warn_once(f"file:{news.text}", news.text)
        return flushes


def _why_nothing(path: Path) -> str:
    """Why a pattern means no file."""
    if path.is_dir():
        return "it is a folder: save its files by FOLDER/**"
    return "it is no regular file" if path.exists() else "there is no such file"


def _read_pattern(pattern: str, base_path: str | None, policy: str, directory: Path) -> tuple[str, str, str]:
    """The pattern and the folder that names are relative to, both absolute; and what is wrong, or nothing."""
    whole = Path(pattern).absolute()
    if policy not in {known.value for known in Policy}:
        return pattern, "", f"the policy is one of {', '.join(Policy)}, not {policy!r}"
    if ".." in whole.parts or "\0" in pattern:
        return pattern, "", "there is a `..` in it, or what no path has"
    if base_path is not None:
        base = Path(base_path).absolute()
    elif not Path(pattern).is_absolute():
        base = Path.cwd()
    elif whole.is_relative_to(directory):
        base = directory  # under the name that it has as one of the run's own files
    else:
        base = Path(folder_of(pattern))
    if not whole.is_relative_to(base):
        return pattern, str(base), f"it does not lie in {base}"
    # The folder is meant as it is, whatever characters it has.
    return str(Path(glob.escape(str(base))) / whole.relative_to(base)), str(base), ""
