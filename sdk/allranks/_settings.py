"""What a run is told by `init`'s arguments and by the environment, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from allranks._warnings import warn_once
from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AddressError, SettingError
from allranks_bus.spool import CAP_BYTES
from allranks_bus.tee.limits import Limits

MODES = ("online", "offline", "disabled")
CONSOLES = ("fd", "wrap", "off")
_MIB = 1024 * 1024
_MIN_CAP_BYTES = _MIB


@dataclass(frozen=True)
class RunSettings:
    """How a run behaves in this process.

    Attributes:
        mode: `online`, `offline` (the spool alone) or `disabled` (nothing is kept).
        address: of the collector; None means this user's embedded one.
        env: the environment at `init`: helpers get it, whatever the program does to its own later.
        console: `fd` (what is printed is kept), `wrap` (what is printed by Python's streams) or `off`.
        spool_cap_bytes: how large the spool may grow while no collector takes what is in it.
        console_limits: how much is kept of a rank that prints without end.
    """

    mode: str
    address: Address | None
    env: Mapping[str, str] = field(repr=False)
    console: str = "fd"
    spool_cap_bytes: int = CAP_BYTES
    console_limits: Limits = field(default_factory=Limits)


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
    return RunSettings(
        chosen,
        address,
        dict(env),
        _word("console", CONSOLES, console, env),
        max(_MIN_CAP_BYTES, _mebibytes("ALLRANKS_SPOOL_CAP_MB", CAP_BYTES, env)),
        _console_limits(env),
    )


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


def _console_limits(env: Mapping[str, str]) -> Limits:
    usual = Limits()
    return Limits(
        rate=_mebibytes("ALLRANKS_CONSOLE_RATE_MB", usual.rate, env),
        burst=_mebibytes("ALLRANKS_CONSOLE_BURST_MB", usual.burst, env),
        most=_mebibytes("ALLRANKS_CONSOLE_MAX_MB", usual.most, env),
    )


def _mebibytes(variable: str, usual: int, env: Mapping[str, str]) -> int:
    """The variable, a number of MiB, in bytes; `usual` where it is not set, or is none."""
    text = env.get(variable, "")
    if not text:
        return usual
    try:
        size = float(text) * _MIB
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        warn_once(variable, f"{variable}={text!r} is not a number of MiB; {usual / _MIB:g} is used")
        return usual
    return int(size)
