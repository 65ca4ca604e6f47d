"""How the C library keeps memory that was given back to it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

# Numbers of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# A line's arrays are below the first; what a larger picture takes goes back to the system at once, as before.
_LARGEST_KEPT = 4 << 20
_MOST_KEPT = 16 << 20


def keep_small_blocks(environment: Mapping[str, str] = os.environ) -> bool:
    """Lets glibc keep freed blocks of up to 4 MB for the next line, 16 MB a thread at most.

    By default a thread that opens images gives their memory back after every line and takes page faults to get it
    again, a quarter of its time. Nothing is done where the operator tuned malloc by environment variables, or
    where the C library has no such setting.

    Returns:
        Whether it was set.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
