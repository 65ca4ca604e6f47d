"""Runs of `longhand batch`, and the rows that they wrote."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.toy_model import ALPHABET
from longhand_server import bulk

CLI = [sys.executable, str(Path(__file__).parents[2] / "clients" / "cli.py"), "batch"]
ENVIRONMENT = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}


def some_text(seed: int) -> str:
    return "".join(random.Random(seed).choices(ALPHABET.replace(" ", ""), k=3 + seed % 9))


def run_elsewhere(
    *arguments: object, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    if "--address" in arguments and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed here: make test-scale brings it")
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, which has loaded already what takes a new one most of its time.

    `longhand batch` replaces its own process by the program of which this is the main function.
    """
    command = list(map(str, arguments))
    printed, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        try:
            status = bulk.main(command)
        except SystemExit as end:  # by argparse
            status = int(str(end.code))
    return subprocess.CompletedProcess(command, status, printed.getvalue(), complaints.getvalue())


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """All rows of an output folder in the order of their numbers."""
    rows: list[dict[str, Any]] = []
    for path in folder.glob("part-*.jsonl"):
        rows += map(json.loads, path.read_text().splitlines())
    for path in folder.glob("part-*.parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        rows += parquet.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: int(row["number"]))


def check_rows(rows: Sequence[Mapping[str, Any]], expected: Sequence[tuple[str, str | None]]) -> None:
    """Each row has its number once, the name's end, and either its text or an error."""
    assert [row["number"] for row in rows] == list(range(len(expected)))
    for row, (name, text) in zip(rows, expected, strict=True):
        assert row["name"].endswith(name), row
        assert row["text"] == text, row
        assert (row["confidence"] is None) == (row["error"] is not None) == (text is None), row


def write_tar(path: Path, samples: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            for member, data in ((f"{name}.png", content), (f"{name}.txt", b"a label")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
