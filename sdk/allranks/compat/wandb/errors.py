"""The exceptions that scripts catch by name."""

from __future__ import annotations


class Error(Exception):
    """Any of these."""


class CommError(Error):
    """What was asked for would have come from a server of wandb's."""


class AuthenticationError(CommError):
    """Never raised here: there is nothing to log in to."""


class UsageError(Error):
    """A call that cannot be meant."""


class UnsupportedError(UsageError):
    """What allranks has no counterpart for, where a script cannot go on without it."""


__all__ = ["AuthenticationError", "CommError", "Error", "UnsupportedError", "UsageError"]
