"""The supervisor's own decisions; its processes are tested in tests/integration/test_workers.py."""

from __future__ import annotations

from pathlib import Path

from longhand_server.supervisor import count_gpus


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    assert count_gpus(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 2
