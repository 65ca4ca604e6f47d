"""Freed memory stays in the process: no page faults for the buffers of one image after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
# Each prints the page faults of a hundred rounds after the first twenty, in a process of its own.
_COUNT = """
import resource, sys
from longhand_server.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(120):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_IMAGES = """
from helpers.toy_model import draw_image
from longhand_server.config import LineFormat
from longhand_server.image import load_line_image

image, line_format = draw_image("a" * 60), LineFormat()
work = lambda: load_line_image(image, line_format)
"""
# The memory calls of an image's work without the image: whether a real one faults by default depends on what else
# lies at the end of the heap.
_BUFFERS = """
import ctypes

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
size = 3 << 20

def work():
    buffers = [libc.malloc(size) for _ in range(3)]
    for buffer in buffers:
        libc.memset(buffer, 1, size)
    for buffer in buffers:
        libc.free(buffer)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told how to keep memory")


def _faults(work: str, mode: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", work + _COUNT, mode],
        env={**plain, "PYTHONPATH": str(_TESTS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


def test_images_take_no_page_faults_once_the_process_is_warm() -> None:
    assert _faults(_IMAGES, "keep") < 100


def test_buffers_of_an_image_s_size_are_given_back_by_default_and_kept_on_request() -> None:
    assert _faults(_BUFFERS, "keep") < 100 < _faults(_BUFFERS, "default")
