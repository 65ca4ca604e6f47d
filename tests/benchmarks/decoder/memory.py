"""By how much one decode raises the peak of a process that does nothing else (Linux).

Run for one case at a time, each in a process of its own: `memory.py LINES WORD_MODEL CHARACTER_MODEL CASE`.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
from lines import Lines
from numpy.typing import NDArray

from longhand_decoder import BeamSearchOptions, CtcBeamSearchDecoder, NgramLanguageModel

CASES = ("one line, both models, beam 50", "10000 frames x 200 labels, no model, beam 50")


def random_line(frames: int, labels: int) -> NDArray[np.float32]:
    """Logits of a long line over many labels, six frames in ten sure of a blank."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(frames, labels)).astype(np.float32)
    logits[rng.random(frames) < 0.6, 0] += 8.0
    return logits


def random_labels(count: int) -> list[str]:
    """A blank and `count` - 1 characters."""
    return ["", *(chr(0x4E00 + i) for i in range(count - 1))]


def status(field: str) -> int:
    """A field of /proc/self/status, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def growth(lines: Path, word_model: str, character_model: str, case: str) -> float:
    """MB that the first decode of the process adds to its peak."""
    if case == CASES[0]:
        archive = Lines.load(lines)
        longest = max(archive.log_probs, key=len).copy()
        words, characters = NgramLanguageModel(word_model), NgramLanguageModel(character_model)
        decoder = CtcBeamSearchDecoder(archive.labels, word_model=words, character_model=characters)
        del archive
        gc.collect()
    else:
        longest = random_line(10000, 200)
        decoder = CtcBeamSearchDecoder(random_labels(200), options=BeamSearchOptions(input="logits"))
    ctypes.CDLL(None).malloc_trim(0)  # what loading has freed is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = status("VmRSS")
    decoder.decode(longest)
    return (status("VmHWM") - before) / 1024.0


def measure(lines: Path, word_model: Path, character_model: Path) -> dict[str, float]:
    """All cases, in MB."""
    found = {}
    for case in CASES:
        command = [sys.executable, __file__, str(lines), str(word_model), str(character_model), case]
        found[f"memory: {case}, MB"] = float(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
    return found


if __name__ == "__main__":
    print(growth(Path(sys.argv[1]), *sys.argv[2:5]))
