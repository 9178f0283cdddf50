"""What travels between ranks and collector, and how: records, messages, spool, sockets, addresses.

Nothing here is loaded before it is asked for: import the module that you need. `sockets` needs anyio; all
others need msgpack and pyzmq at most.
"""

from allranks_bus.version import PROTOCOL_VERSION, __version__

__all__ = ["PROTOCOL_VERSION", "__version__"]
