"""What a run is: the properties of `wandb.Run`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from allranks._signals import is_from_handler
from allranks.compat.wandb._settings import Settings

if TYPE_CHECKING:
    from allranks import Run as AllranksRun

_RESUME_ASKS_S = 2.0


class Facts:
    """See `Run`, which is this and what a run does."""

    sweep_id = None
    sweep_url = None
    starting_step = 0

    def __init__(self, run: AllranksRun, chosen: Mapping[str, Any]) -> None:
        self._run = run
        self._chosen = dict(chosen)
        self._started = time.time()

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def name(self) -> str:
        """What people call it; may be set."""
        return self._run.name

    @name.setter
    def name(self, name: str) -> None:
        self._run.describe(name=str(name))

    @property
    def notes(self) -> str | None:
        """May be set."""
        return self._run.notes

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._run.describe(notes=str(notes or ""))

    @property
    def tags(self) -> tuple[str, ...]:
        """May be set."""
        return self._run.tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        self._run.describe(tags=tuple(map(str, tags)))

    @property
    def project(self) -> str:
        return self._run.project

    @property
    def entity(self) -> str:
        return str(self._chosen.get("entity", ""))

    @property
    def group(self) -> str:
        return self._run.group or ""

    @property
    def job_type(self) -> str:
        return str(self._chosen.get("job_type", ""))

    @property
    def path(self) -> str:
        """Entity, project and id."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)

    @property
    def url(self) -> str | None:
        """The address of the run's page; None while no collector is known."""
        return self._run.url

    def get_url(self) -> str | None:
        """`url`."""
        return self.url

    @property
    def start_time(self) -> float:
        """Unix seconds."""
        return self._started

    @property
    def settings(self) -> Settings:
        """What it was made with, as far as it has a counterpart."""
        return Settings(
            mode=self._run.settings.mode,
            project=self.project,
            entity=self.entity,
            run_id=self.id,
            run_name=self.name,
            run_group=self.group,
        )

    @property
    def disabled(self) -> bool:
        return self._run.settings.mode == "disabled"

    @property
    def offline(self) -> bool:
        return self._run.settings.mode == "offline"

    @property
    def resumed(self) -> bool:
        """Whether the collector knows an earlier attempt of this run.

        It is asked, for 2 seconds at most, where the script said that it resumes; False where it cannot be asked.
        """
        if self._chosen.get("resume", "never") == "never":
            return False
        from allranks.client import Client

        try:
            known = Client(self._run.status()["http"], timeout_s=_RESUME_ASKS_S).run(self.id)
            return any(attempt["launch"] != self._run.identity.launch for attempt in known["attempts"])
        except Exception as error:
            if is_from_handler(error):
                raise
            return False

    def status(self) -> dict[str, Any]:
        """How this process stands with its collector."""
        return self._run.status()

    @property
    def is_finished(self) -> bool:
        """True after `finish`."""
        return self._run.is_finished

    @property
    def is_inherited(self) -> bool:
        """True where it came to this process by a fork or a pickle."""
        return self._run.is_inherited

    def is_over(self, run: AllranksRun) -> bool:
        """Whether it is this run of allranks that it stands for."""
        return self._run is run
