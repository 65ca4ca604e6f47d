"""`make web` and what it starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("arguments", "own"), [("", True), ("--host 0.0.0.0", True), ("--address somewhere:50051", False)]
)
def test_the_page_has_a_server_of_its_own_unless_another_is_named(arguments: str, own: bool) -> None:
    command = ["make", "-n", "web", f"ARGS={arguments}"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    line = next(line for line in outcome.stdout.splitlines() if "-m longhand_web" in line)
    assert ("--local" in line) == own
    assert arguments in line
