"""Thousands of damaged images: each is read or refused, quickly, in little memory, and nothing crashes.

``FUZZ_INPUTS`` says how many (``make fuzz``: 100,000); each run takes other ones than the run before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

_INPUTS = int(os.environ.get("FUZZ_INPUTS", "6000"))
_MAX_SECONDS = 0.2
_MAX_BYTES = 100_000_000

# In a process of its own, so that a crash is seen and the memory measured is that of the decoding alone.
_RUN = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from helpers.image_mutations import mutations
from longhand_server.errors import InvalidImageError
from longhand_server.config import LineFormat
from longhand_server.image import load_line_image
count, seed = int(sys.argv[2]), int(sys.argv[3])
read = refused = 0
slowest, worst = 0.0, b""
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in mutations(count, seed):
    begun = time.process_time()
    try:
        load_line_image(data, LineFormat())
        read += 1
    except InvalidImageError:
        refused += 1
    seconds = time.process_time() - begun
    if seconds > slowest:
        slowest, worst = seconds, data
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([read, refused, slowest, grown, worst.hex()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_images_never_harm() -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(Path(__file__).parents[2]), str(_INPUTS), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libjpeg and libtiff remark on damage there
        check=False,
        timeout=3500,
    )
    assert done.returncode == 0, f"the decoder died with {done.returncode}, seed {seed}"
    read, refused, slowest, grown, worst = json.loads(done.stdout)
    print(
        f"{read} read, {refused} refused, slowest {slowest * 1000:.1f} ms, {grown / 1e6:.1f} MB more memory"
    )
    assert read + refused == _INPUTS
    assert min(read, refused) > _INPUTS // 20
    assert slowest < _MAX_SECONDS, f"{slowest:.3f} s for {worst}"
    assert grown < _MAX_BYTES
