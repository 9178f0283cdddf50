"""What a run is told by `init`'s arguments and by the environment, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from allranks._warnings import warn_once
from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AddressError, SettingError
from allranks_bus.spool import CAP_BYTES

MODES = ("online", "offline", "disabled")
CONSOLES = ("fd", "off")
_MIN_CAP_BYTES = 1024 * 1024


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves in this process.

    Attributes:
        mode: `online`, `offline` (the spool alone) or `disabled` (nothing is kept).
        address: of the collector; None means this user's embedded one.
        env: the environment at `init`: helpers get it, whatever the program does to its own later.
        console: `fd` (what is printed is kept) or `off`.
        spool_cap_bytes: how large the spool may grow while no collector takes what is in it.
    """

    mode: str
    address: Address | None
    env: Mapping[str, str] = field(repr=False)
    console: str = "fd"
    spool_cap_bytes: int = CAP_BYTES


def run_settings(env: Mapping[str, str], mode: str | None, url: str | None, console: str | None) -> RunSettings:
    """The settings from arguments, else the environment.

    Raises:
        SettingError, AddressError: an argument is wrong. A wrong variable gives one warning instead: the training
            that it meets must go on, and its events are kept in the spool.
    """
    chosen = _word("mode", MODES, mode, env)
    address: Address | None = None
    if url is not None:
        address = parse_address(url)
    elif env.get("ALLRANKS_URL"):
        try:
            address = parse_address(env["ALLRANKS_URL"])
        except AddressError as error:
            warn_once("url", f"ALLRANKS_URL: {error}; events stay in the spool until `allranks sync` ships them")
            chosen = "offline" if chosen == "online" else chosen
    return RunSettings(chosen, address, dict(env), _word("console", CONSOLES, console, env), _spool_cap(env))


def _word(name: str, words: tuple[str, ...], given: str | None, env: Mapping[str, str]) -> str:
    """The argument, else the variable, else the first of `words`."""
    if given is not None and given not in words:
        raise SettingError(name, given, f"one of {', '.join(words)}", "init")
    variable = f"ALLRANKS_{name.upper()}"
    chosen = given or env.get(variable) or words[0]
    if chosen not in words:
        warn_once(name, f"{variable}={chosen!r} is none of {', '.join(words)}; {words[0]} is used")
        return words[0]
    return chosen


def _spool_cap(env: Mapping[str, str]) -> int:
    text = env.get("ALLRANKS_SPOOL_CAP_MB", "")
    if not text:
        return CAP_BYTES
    try:
        return max(_MIN_CAP_BYTES, int(float(text) * 1024 * 1024))
    except (ValueError, OverflowError):
        warn_once("cap", f"ALLRANKS_SPOOL_CAP_MB={text!r} is not a number of MiB; {CAP_BYTES >> 20} is used")
        return CAP_BYTES
