"""Programs whose standard streams are closed or full."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.toy_model import draw_image, write_bundle
from longhand_client import benchmark, cli
from longhand_server import __main__ as server
from longhand_server import bulk
from longhand_web import __main__ as web

SCRIPT = """
import os, sys
from longhand_server.standard_streams import announce, open_closed_streams
open_closed_streams()
print("in" if sys.stdin.read() else "nothing", file=sys.stderr)
announce("here")
os.write(int(sys.argv[1]), str(os.open("/", os.O_RDONLY)).encode())
"""


@pytest.mark.parametrize("streams", ["<&-", "<&- >&-", "<&- >&- 2>&-", ">/dev/full"])
def test_numbers_of_closed_streams_are_not_given_away(tmp_path: Path, streams: str) -> None:
    told = tmp_path / "told"
    command = f'exec {sys.executable} -c "$0" 9 9>{told} {streams}'
    outcome = subprocess.run(["bash", "-c", command, SCRIPT], check=False, stdin=subprocess.DEVNULL)
    assert outcome.returncode == 0
    assert int(told.read_text()) > 2


def _start_server() -> object:
    sys.argv[1:] = ["--print-config"]
    return server.main()


@pytest.mark.parametrize(
    "start",
    [
        _start_server,
        lambda: bulk.main([]),
        lambda: cli.main(["--version"]),
        lambda: benchmark.main(["--rate", "0"]),
        lambda: web.main(["--port", "0"]),
    ],
    ids=["server", "bulk", "cli", "benchmark", "web"],
)
def test_every_program_opens_them(start: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit):
        sys.exit(bool(start()))
    assert isinstance(sys.stdin, io.TextIOWrapper)
    sys.stdin.close()


def test_a_bulk_run_goes_on_where_its_progress_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_image("ab"))
    model = write_bundle(tmp_path / "model")
    command = (
        f"{sys.executable} -m longhand_server.bulk $0/a.png --model {model} --format jsonl --out $0/rows"
    )
    outcome = subprocess.run(["bash", "-c", f"exec {command} 2>/dev/full", str(tmp_path)], check=False)
    assert outcome.returncode == 0
    assert (tmp_path / "rows" / "part-00000000.jsonl").is_file()
