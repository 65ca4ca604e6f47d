"""Small runs of ``python -m longhand_training.train``, in this process or in one of their own.

Most tests ask what a run says and writes, and run it here: a process of its own takes seconds for PyTorch's and
Matplotlib's imports, which is far more than such a run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch

from longhand_server.alphabet import Alphabet
from longhand_server.config import NetworkConfig
from longhand_server.network import LineNetwork
from longhand_training.checkpoint import Checkpoint
from longhand_training.config import TrainingConfig
from longhand_training.dataset import Sample
from longhand_training.text import DEFAULT_CHARACTERS
from longhand_training.train import _ENVIRONMENT
from longhand_training.trainer import Trainer

ALPHABET = Alphabet("ab ")

# Runs the command on these arguments, to its end.
Train: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

_SMALL = ("--hidden", "8", "--channels", "4", "4", "4", "4", "--layers", "1", "--batch-pixels", "2000")
# What the command sets before it starts itself anew. Where it is set already the command goes on at once: here it
# must, and elsewhere the second start would import everything twice.
STARTED_ANEW = _ENVIRONMENT


def small_run(arguments: Iterable[object]) -> list[str]:
    """The arguments of a run of a tiny network, on one thread."""
    return ["--workers", "0", "--threads", "1", *_SMALL, *map(str, arguments)]


def command(*arguments: object) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "longhand_training.train", *small_run(arguments)]


def environment() -> dict[str, str]:
    """The environment variables of a process of its own, in which the command does not start itself anew."""
    return {**os.environ, **STARTED_ANEW, "PYTHONWARNINGS": "ignore"}


def train_elsewhere(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment(), timeout=200
    )


def write_small_checkpoint(path: Path) -> Path:
    """Writes a tiny network with random weights and the default alphabet, as a run does."""
    labels = len(Alphabet(DEFAULT_CHARACTERS))
    network = NetworkConfig(labels=labels, channels=(4, 4, 4, 4), blocks=(1, 1, 1), hidden=8, layers=1)
    Checkpoint(network, DEFAULT_CHARACTERS, LineNetwork(network).state_dict(), {}, {}).save(path)
    return path


def own_lines(folder: Path, *texts: str) -> Path:
    """Lines of which no two are the same image, in other folders either."""
    folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        grey = np.full((60, 240), 255, np.uint8)
        grey[0, :160] -= np.frombuffer(hashlib.sha256(f"{folder}/{i}".encode()).digest() * 5, np.uint8) // 64
        cv2.putText(grey, "hello", (10, 42), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 0, 3)
        cv2.imwrite(str(folder / f"{i}.png"), grey)
        (folder / f"{i}.txt").write_text(text, "utf-8")
    return folder


def bars() -> list[Sample]:
    pixels = np.zeros((64, 80), np.float32)
    pixels[10:50, 20:60:8] = 1.0
    return [Sample(pixels, text) for text in ("ab", "ba")]


def tiny_trainer(out: Path, **settings: Any) -> Trainer:
    size: dict[str, Any] = {"channels": (4, 4, 4, 4), "blocks": (1, 1, 1), "hidden": 8, "layers": 1}
    out.mkdir(exist_ok=True)
    return Trainer(TrainingConfig(**size, **settings), ALPHABET, torch.device("cpu"), out)
