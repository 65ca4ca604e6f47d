from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import pytest

if TYPE_CHECKING:
    from helpers.training_runs import Train


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and on a busy machine those wait for each other for minutes."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signal handlers back that a test replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def train(
    handlers: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Train]:
    """Runs the training command in this process."""
    from helpers.training_runs import STARTED_ANEW, small_run
    from longhand_training.train import main

    for name, value in STARTED_ANEW.items():
        monkeypatch.setenv(name, value)
    threads = cv2.getNumThreads()  # the command does without them

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["train", *small_run(arguments)])
        status = main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, status, printed.out, printed.err)

    yield run
    cv2.setNumThreads(threads)
