"""How the decoder's functions on vectors are compiled, whatever the optimisation that a build asks for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "decoder_ext" / "src" / "frame_math.cc"


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="g++ and nm are not installed")
@pytest.mark.parametrize("optimisation", ["-O0", "-Os"])
def test_no_lambda_stays_a_function(optimisation: str, tmp_path: Path) -> None:
    # It would be compiled for the default processor and called by clones for others, with vectors passed another way.
    target = tmp_path / "frame_math.o"
    command = ["g++", "-std=c++17", optimisation, "-fPIC", "-w", "-c", str(SOURCE), "-o", str(target)]
    subprocess.run([*command, f"-I{SOURCE.parents[1] / 'include'}"], check=True, timeout=300)
    listed = subprocess.run(["nm", target], capture_output=True, text=True, check=True, timeout=60).stdout
    names = [line.split()[-1] for line in listed.splitlines()]
    assert any("at_least" in name for name in names)
    assert [name for name in names if "ENKUl" in name] == []
