"""The tee: the small process between a rank's output and the terminal or file behind it.

It copies what the rank, its C code and its children print to where it went before, and keeps it in a spool of its
own. It is started by exec, lives as long as anybody can print, and loads neither ZeroMQ nor msgpack.

    rank ── fd 1, 2 ──► pipe or pty ──► tee ──► terminal, file, pipe   (first, and never delayed by what follows)
                                          └───► spool: CONSOLE records of a writer with the role `console`
"""
