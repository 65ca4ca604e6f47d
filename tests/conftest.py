"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# The networks of tests are too small to gain from PyTorch's threads, which wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine an example takes longer than Hypothesis allows by itself (200 ms), whatever is tested; a test that
# hangs is ended by pytest's own timeout.
settings.register_profile("longhand", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("longhand")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> None:
    """A shell's background job ignores SIGINT, and so would every program that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
