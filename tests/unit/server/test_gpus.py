"""GPUs are found by their device files, so that a machine without any never loads PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from longhand_server import runtime
from longhand_server.errors import ConfigurationError
from longhand_server.gpus import count_gpus
from longhand_server.runtime import choose_device


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    assert count_gpus(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 2


def test_without_a_gpu_auto_is_the_cpu_and_loads_no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "count_gpus", lambda: 0)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    assert choose_device("auto") == "cpu"


def test_a_broken_pytorch_is_named_where_a_gpu_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="PyTorch cannot be loaded"):
        choose_device("cuda")
