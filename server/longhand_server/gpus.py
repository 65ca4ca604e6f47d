"""Which GPUs the machine has, told without loading PyTorch."""

from __future__ import annotations

from pathlib import Path


def count_gpus(devices: Path = Path("/dev")) -> int:
    """CUDA devices that the driver shows."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in devices.glob("nvidia*"))
