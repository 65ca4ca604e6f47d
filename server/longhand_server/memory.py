"""How the process keeps its memory."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT, _LARGE = 32 << 20, 4 << 20


def keep_freed_memory() -> None:
    """Lets the C library keep what the work on an image frees for the next image, up to 32 MiB a thread.

    By default glibc gives such buffers back to the system and takes page faults to get them again, which costs a
    quarter of the time that opening and normalising an image takes. What is larger than 4 MiB still goes back at
    once. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
