"""`top`: a run on one screen, while it runs."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live

from allranks_bus.errors import AllranksError
from allranks_collector.cli.common import Http, RunName
from allranks_collector.cli.output import console
from allranks_collector.cli.reader import open_reader
from allranks_collector.cli.top_view import Loss, Seen, choose_loss, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from allranks_bus.http_client import Params
    from allranks_collector.cli.reader import Reader

REFRESH_S = 1.0
# A look that takes the collector longer than usual is taken less often: it has ranks to hear.
REST = 3.0
PIPE_COLUMNS = 120
# New names of metrics are looked for every so many looks.
_KEYS_EVERY = 10
# Of the console: so many of each rank, which may be alike, and folded then; and the bounds of their number.
_LINES_OF_RANK = 8
_LEAST_LINES, _MOST_LINES = 200, 3072
_LOSS_STEPS = 20
_PACE_STEPS = 2000
_PACE_BUCKETS = 64
# A pace from before that says nothing of now.
_PACE_OLD_S = 60.0


def top(
    run: RunName,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end; so it is in a pipe too.")] = False,
    http: Http = None,
) -> None:
    """Show a run live: its ranks as a grid, its pace, its loss, who is behind, the last lines. q ends it."""
    watch = Watch(open_reader(http, os.environ), run)
    out = console(redrawn=True)
    if once or not out.is_terminal:
        seen = watch.look()
        width = out.width if out.is_terminal else PIPE_COLUMNS
        for line in screen(seen, width, is_unicode=_is_unicode(out)):
            out.print(line, soft_wrap=True)
        return
    with contextlib.suppress(KeyboardInterrupt):
        _live(out, watch)


class Watch:
    """What is asked of a run, again and again."""

    def __init__(self, reader: Reader, run: str) -> None:
        self._reader = reader
        self._run = run
        self._looks = 0
        self._loss: str | None = None
        self._paced: str | None = None

    def look(self) -> Seen:
        """The run as it is now.

        Raises:
            AllranksError: there is no such run, or nobody answers.
        """
        reader, name = self._reader, self._run
        run = reader.run(name)
        ranks = reader.ranks(name)
        if self._looks % _KEYS_EVERY == 0:
            keys = reader.keys(name)
            self._loss = choose_loss(keys)
            self._paced = self._loss or next((key["key"] for key in keys if key["kind"] == "metric"), None)
        self._looks += 1
        now = time.time()
        step = run.get("last_step")
        loss = pace = None
        if step is not None:
            loss = None if self._loss is None else self._newest(self._loss, step)
            is_running = run.get("state") == "running"
            pace = self._pace(self._paced, step, ranks, now) if is_running and self._paced else None
        limit = min(max(_LEAST_LINES, _LINES_OF_RANK * len(ranks)), _MOST_LINES)
        lines = reader.logs(name, {"limit": limit, "fold": True})["lines"]
        return Seen(run=run, ranks=ranks, now=now, pace=pace, loss=loss, lines=lines)

    def _newest(self, key: str, step: int) -> Loss | None:
        """The loss at the newest step that nearly all ranks have logged, of those that came last."""
        wanted: Params = {"reduce": "ranks", "buckets": 0, "step_min": step - _LOSS_STEPS}
        curves = self._reader.curves(self._run, key, wanted) or self._reader.curves(
            self._run, key, {"reduce": "ranks", "buckets": 1}
        )
        if not curves or not curves[-1]["step"]:
            return None
        curve = curves[-1]
        most = max(curve["count"])
        at = max(place for place, count in enumerate(curve["count"]) if count >= 0.9 * most)
        return Loss(key, curve["step"][at], curve["mean"][at], curve["min"][at], curve["max"][at])

    def _pace(self, key: str, step: int, ranks: list[dict[str, Any]], now: float) -> float | None:
        """Steps a second, by the newest points of the first rank that has come."""
        first = next((rank["rank"] for rank in ranks if rank["state"] != "expected"), 0)
        wanted: Params = {"ranks": str(first), "buckets": _PACE_BUCKETS, "step_min": step - _PACE_STEPS}
        curves = self._reader.curves(self._run, key, wanted)
        if not curves or len(curves[-1]["step"]) < 2:
            return None
        steps, times = curves[-1]["step"], curves[-1]["time"]
        at = len(steps) // 2 if len(steps) > 8 else 0  # the newer half: what it is now, and not in the mean
        taken, seconds = steps[-1] - steps[at], times[-1] - times[at]
        if seconds <= 0 or taken <= 0 or now - times[-1] > _PACE_OLD_S:
            return None
        return float(taken / seconds)


def _live(out: Console, watch: Watch) -> None:
    begun = time.monotonic()
    seen = watch.look()
    with _keys() as key_within, Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            rest_s = max(REFRESH_S, REST * (time.monotonic() - begun))
            lines = screen(seen, out.width, out.height, is_unicode=_is_unicode(out))
            live.update(Group(*lines), refresh=True)
            if _is_to_end(key_within, time.monotonic() + rest_s):
                return
            begun = time.monotonic()
            try:
                seen = watch.look()
            except AllranksError as error:
                seen = replace(seen, problem=f"{error}; asked again every second", now=time.time())


def _is_to_end(key_within: Callable[[float], str], until: float) -> bool:
    """Waits until then for a q."""
    while (left := until - time.monotonic()) > 0:
        if key_within(left) in ("q", "Q", "\x03"):
            return True
    return False


@contextlib.contextmanager
def _keys() -> Generator[Callable[[float], str]]:
    """Gives a function that waits so many seconds for a key: empty where none came, or there is no keyboard."""
    if not sys.stdin.isatty():

        def no_key(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield no_key
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def key_within(seconds: float) -> str:
        ready = select.select([fd], [], [], seconds)[0]
        if not ready:
            return ""
        try:
            # A terminal that has gone gives no bytes, or an error, and at once.
            return os.read(fd, 1).decode("latin-1") or "q"
        except OSError:
            return "q"

    try:
        tty.setcbreak(fd)
        yield key_within
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _is_unicode(out: Console) -> bool:
    return out.encoding.lower().startswith("utf")
