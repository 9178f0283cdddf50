"""Whether this process is the kernel of a notebook, where cells are run again and again in one process."""

from __future__ import annotations

import sys


def is_notebook() -> bool:
    """True in a kernel of Jupyter's; imports nothing."""
    ipython = sys.modules.get("IPython")
    get_shell = getattr(ipython, "get_ipython", None)
    return get_shell is not None and hasattr(get_shell(), "kernel")
