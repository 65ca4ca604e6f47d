"""The type stubs say what the compiled module has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import longhand_decoder

pytest.importorskip("mypy", reason="mypy is not installed")

# pybind11's own metaclass (the members of these classes are compared all the same), and two classes that have no
# constructor.
ALLOWED = r"""
longhand_decoder\._core\.(CharacterSpan|Decoder|DecoderStream|Hypothesis|NgramLanguageModel|PreparedOptions|WordSpan)
longhand_decoder\._core\.(DecoderStream|PreparedOptions)\.__init__
"""


def environment() -> dict[str, str]:
    """With the way to an editable install, whose import hooks mypy does not follow."""
    home = Path(longhand_decoder.__file__).parents[1]
    return dict(os.environ) if home.name == "site-packages" else {**os.environ, "MYPYPATH": str(home)}


@pytest.mark.timeout(600)
def test_stubtest_finds_no_difference(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    command = [sys.executable, "-m", "mypy.stubtest", "longhand_decoder", "--ignore-unused-allowlist"]
    command += ["--allowlist", str(allowed)]
    outcome = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=590, env=environment()
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
