"""Freed memory stays in the process, which spares page faults."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from longhand_server.memory import keep_small_blocks

_LINES = 50
# Page faults of opening lines in a thread, once that has warmed up.
_FAULTS = f"""
import resource, sys, threading
import cv2, numpy as np
from longhand_server.config import LineFormat
from longhand_server.image import load_line_image
from longhand_server.memory import keep_small_blocks

cv2.setNumThreads(1)
grey = np.full((82, 1285), 255, np.uint8)
for x in range(20, 1240, 30):
    cv2.line(grey, (x, 20), (x + 14, 60), 0, 3)
image = cv2.imencode(".png", grey)[1].tobytes()

def lines():
    faults = []
    for _ in range(2):
        for _ in range({_LINES}):
            load_line_image(image, LineFormat())
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    print(keeps, faults[1] - faults[0])

keeps = sys.argv[1] == "kept" and keep_small_blocks({{}})
thread = threading.Thread(target=lines)
thread.start()
thread.join()
"""


def _faults(way: str) -> tuple[str, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", _FAULTS, way]
    keeps, faults = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return keeps, int(faults)


def test_opening_lines_takes_no_page_faults_again_and_again() -> None:
    keeps, faults = _faults("kept")
    if keeps != "True":
        pytest.skip("this C library has no mallopt")
    assert faults < 2 * _LINES
    assert _faults("default")[1] > 20 * _LINES  # or there is nothing to spare any more


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_operator_set_stays(name: str) -> None:
    assert not keep_small_blocks({name: "1"})
