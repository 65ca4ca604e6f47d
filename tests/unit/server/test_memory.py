"""Freed memory stays in the process: no page faults for the buffers of one image after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
# Page faults of a hundred images after the first ones, in a process of its own.
_PROGRAM = """
import resource, sys
from helpers.toy_model import draw_image
from longhand_server.config import LineFormat
from longhand_server.image import load_line_image
from longhand_server.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
image = draw_image("a" * 60)
for number in range(120):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    load_line_image(image, LineFormat())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, mode],
        env={**plain, "PYTHONPATH": str(_TESTS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told how to keep memory")
def test_images_take_no_page_faults_once_the_process_is_warm() -> None:
    assert _faults("keep") < 100 < _faults("default")
