"""Hostile files: refused with a reason, in little time and memory (issue 2, "Bad input")."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.bad_images import bad_images
from helpers.image_samples import costly_images
from longhand_server.errors import InvalidImageError
from longhand_server.image_file import decode_grey

_BAD = bad_images()
_MAX_SECONDS = 0.2
_MAX_BYTES = 100_000_000

# Each file is decoded in a child of its own, whose peak memory therefore counts from its start.
_MEASURE = """
import json, os, resource, sys, time
from longhand_server.errors import InvalidImageError
from longhand_server.image_file import decode_grey
results = {}
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        try:
            decode_grey(data)
            refused = False
        except InvalidImageError:
            refused = True
        seconds = time.process_time() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writer, json.dumps([refused, seconds, grown * 1024]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        results[os.path.basename(path)] = json.loads(answer.read() or "null")
    os.wait()
print(json.dumps(results))
"""


@pytest.mark.parametrize("name", _BAD)
def test_error_says_what_is_wrong(name: str) -> None:
    data, message = _BAD[name]
    with pytest.raises(InvalidImageError, match=message) as caught:
        decode_grey(data)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "\n" not in str(caught.value)


def measure(files: dict[str, bytes], folder: Path) -> dict[str, tuple[bool, float, int] | None]:
    """Decodes each file; returns (refused, CPU seconds, growth of peak memory in bytes)."""
    paths = []
    for number, data in enumerate(files.values()):
        paths.append(folder / str(number))
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    results = json.loads(done.stdout)
    return {name: results[str(number)] for number, name in enumerate(files)}


def test_worst_sound_files_are_bounded(tmp_path: Path) -> None:
    for name, result in measure(costly_images(), tmp_path).items():
        assert result is not None, f"{name}: the process died"
        refused, seconds, grown = result
        assert not refused, name
        assert seconds < 2 * _MAX_SECONDS, f"{name}: {seconds:.3f} s"
        assert grown < _MAX_BYTES, f"{name}: {grown / 1e6:.0f} MB"


def test_refusing_is_cheap(tmp_path: Path) -> None:
    results = measure({name: data for name, (data, _) in _BAD.items()}, tmp_path)
    for name, result in results.items():
        assert result is not None, f"{name}: the process died"
        refused, seconds, grown = result
        assert refused, name
        assert seconds < _MAX_SECONDS, f"{name}: {seconds:.3f} s"
        assert grown < _MAX_BYTES, f"{name}: {grown / 1e6:.0f} MB"
