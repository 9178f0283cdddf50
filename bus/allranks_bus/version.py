"""The version of the distribution and of the wire format, each in one place."""

__version__ = "0.1.0"

PROTOCOL_VERSION = 1
