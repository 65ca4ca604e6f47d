"""What `longhand batch` makes of its arguments, and what it refuses before it does anything."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longhand_server import bulk
from longhand_server.config import RuntimeConfig, ServerConfig
from longhand_server.errors import ConfigurationError, InvalidModelError, InvalidRequestError, LonghandError


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


def _config(*arguments: str) -> ServerConfig:
    return bulk._config(bulk._parser().parse_args(["a.png", "--out", "rows", *arguments]))


def test_every_setting_arrives() -> None:
    wanted = ["--model", "toy", "--device", "cuda", "--precision", "full", "--threads", "3"]
    config = _config(*wanted, "--second-look", "false", "--max-image-bytes", "99")
    assert config.models.model == "toy"
    assert config.runtime == RuntimeConfig("cuda", precision="full", threads=3, second_look=False)
    assert config.image.max_bytes == 99


def test_one_process_takes_all_cores_and_a_reader_of_a_cluster_its_own() -> None:
    assert _config() == ServerConfig()
    assert _config("--address", "auto").runtime.threads == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LonghandError("a reader died"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (InvalidModelError("model"), 2),
        (InvalidRequestError("no image"), 2),
        (ConfigurationError("--device"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_exit_code_tells_why_it_ended(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(bulk, "_run", fail)
    assert bulk.main(["a.png", "--out", "rows"]) == code


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bulk, "_run", fail)
    assert bulk.main(["a.png", "--out", "rows"]) == 1
    assert capsys.readouterr().err == "longhand batch: rows: No space left on device\n"


def test_help_needs_no_libraries_that_read_images() -> None:
    script = "import longhand_server.bulk, sys; print({'cv2', 'onnxruntime', 'grpc'} & {*sys.modules})"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert outcome.stdout == "set()\n"


def test_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in bulk._parser().format_help().splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_told_now_and_then(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = bulk._Progress(1000, 100, 2)
    for seconds, errors in ((0.5, 1), (2.0, 1), (12.0, 1), (200.0, 0), (200.5, 0)):
        now = 1000.0 + seconds
        progress.add(100, errors)
    now = 1205.0
    progress.end()
    progress.close()
    lines = [
        "100 of 1,000 images were done by an earlier run, 2 of which could not be read",
        "300 of 1,000 images (30.0%), 100.0/s, 4 not read, 0 h 0 min left",
        "400 of 1,000 images (40.0%), 25.0/s, 5 not read, 0 h 0 min left",
        "500 of 1,000 images (50.0%), 2.0/s, 5 not read, 0 h 4 min left",
        "read 500 images in 205.0 s, 2.4/s; 5 could not be read",
    ]
    if terminal:
        said = "\n\r\033[K".join(lines[:2]) + "".join(f"\r\033[K{line}" for line in lines[2:]) + "\n"
    else:
        del lines[1]  # within ten seconds
        said = "".join(f"{line}\n" for line in lines)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "said"),
    [(KeyboardInterrupt(), "stopped; --resume goes on"), (LonghandError("a reader died"), "a reader died")],
)
def test_what_ends_a_run_is_told_below_its_progress(
    error: BaseException,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> Iterator[tuple[int, int]]:
        now.append(now[-1] + 2)
        yield 1, 0
        raise error

    now = [1000.0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(time, "monotonic", lambda: now[-1])
    monkeypatch.setattr(bulk, "_read_here", fails)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    bulk.main([str(tmp_path), "--out", str(tmp_path / "rows"), "--format", "jsonl"])
    progress, last = capsys.readouterr().err.splitlines()[-2:]
    assert progress.endswith("1 of 2 images (50.0%), 0.5/s, 0 not read, 0 h 0 min left")
    assert last == f"longhand batch: {said}"
