"""The files of a run, on their way to the collector: what is wanted, what is sent, what has arrived.

An *outbox* (a folder beside the spools) says what is to be sent and how far that is; the *shipper*, a process of its
own, sends it in offers and chunks (docs/protocol.md §10), and survives whatever happens to the training.
"""
