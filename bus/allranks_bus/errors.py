"""Every error that allranks raises on purpose is an `AllranksError`; one class per different reaction.

    AllranksError
    ├── AddressError      an address that cannot be one          → correct the setting
    ├── SettingError      a setting's value that cannot be used  → correct the setting
    ├── ProtocolError     bytes from a peer that break the protocol → drop the message, count it
    │   └── VersionMismatch   a peer of another protocol version    → tell the peer, keep its spool
    ├── BadFileName       a name that no stored file can have → leave the file out, and say so
    └── SpoolError        a spool that cannot be written or read → go on without it, count the drops
        └── SpoolBusy     its writer (or another drainer) is alive → leave it alone

Each builds its one-line message from facts: what was expected, what came, what to do.
"""

from __future__ import annotations

from allranks_bus.brief import brief


class AllranksError(Exception):
    """The base of all errors that allranks raises on purpose."""


class AddressError(AllranksError):
    """An address could not be understood."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(
            f"cannot use the address {text!r}: {problem}; expected tcp://HOST:PORT or ipc:///PATH "
            "(for example tcp://127.0.0.1:5571)"
        )


class SettingError(AllranksError):
    """A setting's value cannot be used."""

    def __init__(self, name: str, value: object, expected: str, source: str) -> None:
        super().__init__(f"{name}={value!r} (from {source}) cannot be used: expected {expected}")
        self.name = name


class ProtocolError(AllranksError):
    """Bytes from a peer break the protocol."""


class VersionMismatch(ProtocolError):
    """A peer speaks another version of the protocol; `writer` names it where the header told."""

    def __init__(self, theirs: object, ours: int, writer: bytes | None) -> None:
        super().__init__(
            f"this message is of protocol version {brief(theirs)}, and this side speaks 1 to {ours}: "
            "upgrade the older of the two allranks installations"
        )
        self.writer = writer


class BadFileName(AllranksError):
    """A file cannot be stored under this name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"no file can be stored as {brief(name)}: {problem}")


class SpoolError(AllranksError):
    """A spool cannot be written or read."""


class SpoolBusy(SpoolError):
    """Somebody alive holds the spool."""
