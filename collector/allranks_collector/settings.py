"""The collector's settings: one table, and every value knows where it came from.

A setting is looked for in this order, and the first place that has it wins:

    flag (--http-port 8080)  >  environment (ALLRANKS_HTTP_PORT)  >  TOML file (http_port = 8080)  >  default

The TOML file is the one named by ALLRANKS_CONFIG, else HOME/config.toml, else /etc/allranks/config.toml.
The command line's flags, the dashboard's list of settings and `allranks doctor` are made from this table.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import shlex
import sys
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from allranks_bus.addresses import DEFAULT_DATA_PORT, DEFAULT_HTTP_PORT
from allranks_bus.errors import SettingError
from allranks_bus.home import home_dir, spool_roots
from allranks_collector.alerts.rules import CHOICES, DEFAULT_RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

SYSTEM_FILE = Path("/etc/allranks/config.toml")
EMBEDDED_IDLE_EXIT_S = 60.0  # a collector that nobody asked for goes this long after its last writer and viewer


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How a value is written: `parse` takes text or what TOML gave, and raises ValueError for the rest."""

    expected: str
    metavar: str
    parse: Callable[[object], T]
    is_secret: bool = False


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError
    return raw.strip()


def _path(raw: object) -> Path:
    return Path(_text(str(raw) if isinstance(raw, Path) else raw)).expanduser().absolute()


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError
    number = float(raw)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(raw: object, low: int, high: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        raise ValueError
    number = int(raw)
    if not low <= number <= high:
        raise ValueError
    return number


def _positive(raw: object) -> float:
    number = _number(raw)
    if number <= 0:
        raise ValueError
    return number


def _or_none(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    """`none` in words turns a setting off whose default is a value."""

    def read(raw: object) -> T | None:
        if raw is None or (isinstance(raw, str) and raw.strip().lower() == "none"):
            return None
        return parse(raw)

    return read


_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _switch(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = _text(raw).lower()
    if word not in _WORDS:
        raise ValueError
    return _WORDS[word]


def _names(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(name.strip() for name in raw.split(",") if name.strip())
    if not isinstance(raw, (list, tuple)):
        raise ValueError
    return tuple(_text(name) for name in raw)


def _level(raw: object) -> str:
    word = _text(raw).lower()
    if word not in ("debug", "info", "warning", "error"):
        raise ValueError
    return word


def _addresses(raw: object) -> tuple[str, ...]:
    """Addresses of services, between blanks or as a list: a comma may be part of one."""
    found = tuple(raw.split()) if isinstance(raw, str) else _names(raw)
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/*[^/\s]", address) for address in found):
        raise ValueError
    return found


def _command(raw: object) -> tuple[str, ...]:
    return tuple(shlex.split(raw)) if isinstance(raw, str) else _names(raw)


def _rules(raw: object) -> tuple[str, ...]:
    names = _names(raw)
    if names == ("none",):
        return ()
    if not set(names) <= set(CHOICES):
        raise ValueError
    return names


PATH = Kind("a path", "PATH", _path)
OPTIONAL_PATH = Kind("a path, or none", "PATH", _or_none(lambda raw: str(_path(raw))))
TEXT = Kind("a host name or address", "HOST", _text)
PORT = Kind("a port, 0 (any free one) to 65535", "PORT", lambda raw: _whole(raw, 0, 65535))
DATA_PORT = Kind("a port, 1 to 65534 (control is on the next one)", "PORT", lambda raw: _whole(raw, 1, 65534))
COUNT = Kind("a whole number of at least 1", "N", lambda raw: _whole(raw, 1, 2**31 - 1))
POSITIVE = Kind("a number greater than 0", "X", _positive)
OPTIONAL_COUNT = Kind("a whole number of at least 1, or none", "N", _or_none(lambda raw: _whole(raw, 1, 2**31 - 1)))
COUNT_OR_ALL = Kind("a whole number, 0 for all", "N", lambda raw: _whole(raw, 0, 2**31 - 1))
OPTIONAL_POSITIVE = Kind("a number greater than 0, or none", "X", _or_none(_positive))
SWITCH = Kind("true or false", "BOOL", _switch)
NAMES = Kind("names with commas between them", "NAME,…", _names)
ADDRESSES = Kind("addresses such as slack://…, with blanks between them", "URL…", _addresses, is_secret=True)
COMMAND = Kind("a command with its arguments", "CMD", _command)
RULES = Kind(f"none, or names with commas between them, out of {', '.join(CHOICES)}", "NAME,…", _rules)
LEVEL = Kind("debug, info, warning or error", "LEVEL", _level)


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind[Any]
    help: str
    env: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _row(kind: Kind[Any], help_: str, env: str = "") -> dict[str, Any]:
    """What makes a field of `Settings` a row of the table."""
    return {"kind": kind, "help": help_, "env": env}


@dataclass(frozen=True)
class Settings:
    """What a collector is told. `load_settings` makes it; a test names the folders and what it needs."""

    home: Path = field(metadata=_row(PATH, "folder of all that the collector keeps"))
    database: Path = field(metadata=_row(PATH, "the DuckDB file (default: HOME/allranks.duckdb)"))
    spool: Path = field(metadata=_row(PATH, "folder of the writers' spools on this host"))
    files: Path = field(metadata=_row(PATH, "folder of the runs' files (default: HOME/files)"))
    host: str = field(default="127.0.0.1", metadata=_row(TEXT, "address to listen on, for data and HTTP"))
    http_port: int = field(default=DEFAULT_HTTP_PORT, metadata=_row(PORT, "port of dashboard and API"))
    data_port: int = field(default=DEFAULT_DATA_PORT, metadata=_row(DATA_PORT, "port of data; control is the next"))
    ipc: str | None = field(default=None, metadata=_row(OPTIONAL_PATH, "Unix socket for data, in place of TCP"))
    insecure: bool = field(default=False, metadata=_row(SWITCH, "listen beyond this machine, without keys"))
    allowed_hosts: tuple[str, ...] = field(default=(), metadata=_row(NAMES, "more names to be called by in HTTP"))
    commit_interval_s: float = field(default=0.1, metadata=_row(POSITIVE, "longest wait of events for a commit"))
    max_pending_mb: int = field(default=64, metadata=_row(COUNT, "events in memory before senders have to wait"))
    files_reserve_mb: int | None = field(
        default=None,
        metadata=_row(OPTIONAL_COUNT, "room on the disk that files leave free (default: 5 %, and 1 GiB)"),
    )
    file_versions: int = field(default=1, metadata=_row(COUNT_OR_ALL, "contents of each file that are kept; 0: all"))
    max_file_mb: int | None = field(
        default=None, metadata=_row(OPTIONAL_COUNT, "largest file that is taken (default: none)")
    )
    memory_limit_mb: int = field(default=1024, metadata=_row(COUNT, "memory that DuckDB may use"))
    threads: int = field(default=2, metadata=_row(COUNT, "threads that DuckDB may use"))
    heartbeat_timeout_s: float = field(default=5.0, metadata=_row(POSITIVE, "silence that makes unreachable"))
    dead_after_s: float | None = field(
        default=600.0, metadata=_row(OPTIONAL_POSITIVE, "silence that makes dead, or none")
    )
    stall_min_s: float = field(default=10.0, metadata=_row(POSITIVE, "time without a step that is never a stall"))
    stall_factor: float = field(default=20.0, metadata=_row(POSITIVE, "usual step times that make a stall"))
    drain_orphans: bool = field(default=True, metadata=_row(SWITCH, "bring in what dead writers left in spools"))
    idle_exit_s: float | None = field(
        default=None,
        metadata=_row(
            OPTIONAL_POSITIVE,
            f"end when idle for so long (default: none; embedded {EMBEDDED_IDLE_EXIT_S:g})",
            env="ALLRANKS_IDLE_EXIT",
        ),
    )
    bar_history: bool = field(
        default=False, metadata=_row(SWITCH, "keep each state of a progress bar as a line of its own")
    )
    keep_days: float | None = field(
        default=None, metadata=_row(OPTIONAL_POSITIVE, "remove runs so long after their end (default: none)")
    )
    alert_targets: tuple[str, ...] = field(default=(), metadata=_row(ADDRESSES, "services that get alerts (apprise)"))
    alert_command: tuple[str, ...] = field(default=(), metadata=_row(COMMAND, "command that gets alerts on stdin"))
    alert_rules: tuple[str, ...] = field(default=DEFAULT_RULES, metadata=_row(RULES, "what is worth an alert"))
    alert_interval_s: float = field(default=600.0, metadata=_row(POSITIVE, "least time between a run's like alerts"))
    alert_no_data_s: float | None = field(
        default=1800.0, metadata=_row(OPTIONAL_POSITIVE, "time without data of a run that is worth an alert, or none")
    )
    log_level: str = field(default="info", metadata=_row(LEVEL, "what the collector's log holds"))
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    def described(self) -> dict[str, dict[str, object]]:
        """Every setting as `{name: {"value": …, "source": …}}`, for JSON."""
        return {
            row.name: {
                "value": _shown(row.kind, getattr(self, row.name)),
                "source": self.sources.get(row.name, "default"),
            }
            for row in TABLE
        }


TABLE: tuple[Setting, ...] = tuple(
    Setting(
        row.name,
        row.metadata["kind"],
        row.metadata["help"],
        row.metadata["env"] or f"ALLRANKS_{row.name.upper()}",
    )
    for row in dataclasses.fields(Settings)
    if row.metadata
)
_BY_NAME = MappingProxyType({row.name: row for row in TABLE})


def _shown(kind: Kind[Any], value: Any) -> object:
    """A value for everybody who may look: of addresses with passwords in them only what they begin with."""
    return [f"{address.partition(':')[0]}:…" for address in value] if kind.is_secret else _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class _Found:
    raw: object
    source: str


def load_settings(
    flags: Mapping[str, object],
    env: Mapping[str, str],
    file: Path | None = None,
    *,
    embedded: bool = False,
) -> Settings:
    """Read the settings from all their places, and check what must hold between them.

    Args:
        flags: by setting name, what the command line gave; None stands for a flag that was not given.
        env: the environment; an empty variable counts as absent.
        file: the TOML file; None looks in the usual places, where it need not exist.
        embedded: whether this is a collector that `init` started by itself: it ends when idle.

    Raises:
        SettingError: an unknown name, a value that cannot be read, or values that do not go together.
    """
    for name in flags:
        _check_known(name, flags[name], "flag")
    found: dict[str, _Found] = {}
    for row in TABLE:
        if flags.get(row.name) is not None:
            found[row.name] = _Found(flags[row.name], f"flag {row.flag}")
        elif env.get(row.env, "").strip():
            found[row.name] = _Found(env[row.env], f"env {row.env}")
    home = Path(_read("home", found["home"])) if "home" in found else home_dir(env)
    for name, entry in _file_entries(_config_file(file, env, home)).items():
        found.setdefault(name, entry)

    values = {name: _read(name, entry) for name, entry in found.items()}
    sources = {row.name: found[row.name].source if row.name in found else "default" for row in TABLE}
    if embedded and "idle_exit_s" not in found:
        values["idle_exit_s"] = EMBEDDED_IDLE_EXIT_S
        sources["idle_exit_s"] = "default (embedded)"
    home = values.setdefault("home", home)
    values.setdefault("database", home / "allranks.duckdb")
    values.setdefault("spool", next(spool_roots({**env, "ALLRANKS_HOME": str(home)}), home / "spool"))
    values.setdefault("files", home / "files")
    settings = Settings(**values, sources=MappingProxyType(sources))
    _check_together(settings)
    return settings


def _read(name: str, entry: _Found) -> Any:
    row = _BY_NAME[name]
    try:
        return row.kind.parse(entry.raw)
    except (ValueError, TypeError, OverflowError):
        raw = "…" if row.kind.is_secret else entry.raw
        raise SettingError(name, raw, row.kind.expected, entry.source) from None


def _config_file(file: Path | None, env: Mapping[str, str], home: Path) -> Path | None:
    """The one file that is read. A file that somebody named must exist; one in a usual place need not."""
    named = file or (Path(env["ALLRANKS_CONFIG"]).expanduser() if env.get("ALLRANKS_CONFIG") else None)
    if named is not None:
        if not named.is_file():
            origin = "flag --config" if file else "env ALLRANKS_CONFIG"
            raise SettingError("config", str(named), "a TOML file that is there: create it, or name another", origin)
        return named
    return next((path for path in (home / "config.toml", SYSTEM_FILE) if path.is_file()), None)


def _file_entries(path: Path | None) -> dict[str, _Found]:
    if path is None:
        return {}
    source = f"file {path}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        expected = f"a file that can be read ({error.strerror}): check its owner and mode"
        raise SettingError("config", str(path), expected, source) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        expected = f"TOML, such as http_port = 5570 ({' '.join(str(error).split())})"
        raise SettingError("config", str(path), expected, source) from None
    for name, raw in table.items():
        _check_known(name, raw, source)
    return {name: _Found(raw, source) for name, raw in table.items()}


def _check_known(name: str, raw: object, source: str) -> None:
    if name in _BY_NAME:
        return
    close = difflib.get_close_matches(name, _BY_NAME, n=1)
    hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(_BY_NAME)}"
    raise SettingError(name, raw, f"the name of a setting: {hint}", source)


def _check_together(settings: Settings) -> None:
    if not settings.insecure and not is_loopback(settings.host):
        expected = (
            "a loopback address such as 127.0.0.1: beyond this machine nothing is protected yet; where you "
            "trust the network, allow it with --insecure (in the file: insecure = true)"
        )
        raise SettingError("host", settings.host, expected, settings.sources["host"])
    if settings.ipc is None and settings.http_port - settings.data_port in (0, 1):
        expected = f"another port than data ({settings.data_port}) and control ({settings.data_port + 1})"
        raise SettingError("http_port", settings.http_port, expected, settings.sources["http_port"])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a socket bound to `host`. No name but localhost counts as inside."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
