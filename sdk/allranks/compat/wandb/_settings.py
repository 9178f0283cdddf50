"""What a run is made with: the arguments of `init`, else Settings, else the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from allranks import _config
from allranks.compat.wandb._left_out import say_left_out
from allranks.compat.wandb._table import ENVIRONMENT, INIT_ARGUMENTS, SETTINGS, Fate, names_of

_IGNORED = names_of(INIT_ARGUMENTS, Fate.LEFT_OUT)
_MODES = {"shared": "online", "run": "online", "dryrun": "offline"}
_CONSOLES = {"redirect": "fd", "wrap": "fd", "wrap_raw": "fd", "wrap_emu": "fd", "off": "off"}
_TRUE = ("1", "true", "yes", "on")


class Settings:
    """Any settings of wandb's, by keyword. Those that allranks has no counterpart for are left out."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        """Whatever was not set."""
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def choose(arguments: Mapping[str, Any], settings: Any, env: Mapping[str, str]) -> dict[str, Any]:
    """What `allranks.init` and the run are given: each argument, else the setting, else what the environment says.

    What has no meaning here is named in one line.
    """
    chosen = {name: value for name, value in arguments.items() if value is not None}
    set_ = {name: value for name, value in _config.entries(settings).items() if value is not None}
    unused = [f"settings.{name}" for name in set_ if name not in SETTINGS]
    for name, argument in SETTINGS.items():
        if name in set_:
            chosen.setdefault(argument, set_[name])
    if not env.get("ALLRANKS_MODE") and env.get("WANDB_DISABLED", "").lower() in _TRUE:
        chosen.setdefault("mode", "disabled")
    for argument, (ours, theirs) in ENVIRONMENT.items():
        if argument not in chosen and not env.get(ours) and env.get(theirs):
            chosen[argument] = env[theirs]
    unused += [name for name in chosen if name in _IGNORED and chosen[name]]
    if unused:
        _say_unused(unused)
    return {name: _TRANSLATED[name](value) if name in _TRANSLATED else value for name, value in chosen.items()}


def chosen_config(config: Any, included: Iterable[str] | None, excluded: Iterable[str] | None) -> dict[str, Any]:
    """The entries that a run is started with."""
    if isinstance(config, str):
        say_left_out("init(config=PATH)", "read the file, and pass a dict")
        return {}
    if hasattr(config, "flag_values_dict"):  # absl.flags.FLAGS
        config = config.flag_values_dict()
    entries = {str(key): value for key, value in _config.entries(config).items()}
    if included:
        entries = {key: value for key, value in entries.items() if key in set(included)}
    return {key: value for key, value in entries.items() if key not in set(excluded or ())}


def _say_unused(names: Iterable[str]) -> None:
    """One line for all that was given and means nothing here, with what to do where there is something to do."""
    say_left_out(
        f"init({', '.join(sorted(names))})",
        "; ".join(dict.fromkeys(_IGNORED[name] for name in sorted(names) if name in _IGNORED))
        or "there is no such setting in allranks",
    )


def _run_id(text: Any) -> str:
    """An id that allranks can have."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(text)).lstrip("._-")[:128] or "run"


def _tags(tags: Any) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in tags.split(",")) if isinstance(tags, str) else tuple(map(str, tags))


def _mode(mode: Any) -> Any:
    return _MODES.get(mode, mode)


def _console(console: Any) -> str | None:
    return _CONSOLES.get(console)


def _resume(resume: Any) -> str:
    return "never" if resume == "never" else "allow"


_TRANSLATED: Mapping[str, Callable[[Any], Any]] = {
    "mode": _mode,
    "console": _console,
    "id": _run_id,
    "tags": _tags,
    "dir": str,
    "resume": _resume,
}
