"""What `longhand batch` makes of its arguments, and what it refuses before it does anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from longhand_server import bulk


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--readers", "3"], "say which one with --address"),
        (["--decoder", "greedy", "--beam-width", "5"], "leave out --decoder greedy"),
    ],
)
def test_options_without_effect(
    tmp_path: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        bulk.main([str(tmp_path), "--out", str(tmp_path / "rows"), *arguments])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert bulk.main([str(tmp_path), "--out", str(tmp_path / "file"), "--format", "jsonl"]) == 1
    assert capsys.readouterr().err == f"longhand batch: {tmp_path / 'file'}: File exists\n"


@pytest.mark.parametrize(("wanted", "second_look"), [([], True), (["--second-look", "false"], False)])
def test_second_looks_can_be_switched_off(wanted: list[str], second_look: bool) -> None:
    given = bulk._parser().parse_args(["a.png", "--out", "rows", *wanted])
    assert bulk._config(given).runtime.second_look == second_look


def test_help_needs_no_libraries_that_read_images() -> None:
    script = "import longhand_server.bulk, sys; print({'cv2', 'onnxruntime', 'grpc'} & {*sys.modules})"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert outcome.stdout == "set()\n"
