"""How many cores there are for this process, without asking more of the machine than it is given."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(cgroup: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process is tied to, and no more than its share of CPU time amounts to.

    Args:
        cgroup: Names the control group (version 2), which holds a container's or a systemd unit's share.
        mounted: Where control groups lie.
    """
    tied = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        group = next(line[3:] for line in cgroup.read_text().splitlines() if line.startswith("0::"))
        share, period = (mounted / group.strip("/") / "cpu.max").read_text().split()
        return min(tied, max(1, math.ceil(int(share) / int(period))))
    except (OSError, StopIteration, ValueError):  # the last of "max": any share
        return tied
