"""How the server's programs end while threads still work."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BUSY = """
import threading
import numpy as np
from longhand_decoder import CtcBeamSearchDecoder
from longhand_server.workers import end_process

decoder = CtcBeamSearchDecoder(["", "a", "b"])
busy = threading.Event()

def work():
    while True:
        decoder.decode_batch([np.full((40, 3), -1.0, np.float32)])
        busy.set()

threading.Thread(target=work, daemon=True).start()
busy.wait()
print("said", end="")
end_process(3)
"""


class EndedError(Exception):
    """In the place of the process's end."""


def test_a_thread_that_comes_back_from_the_decoder_does_not_abort_the_process() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # what was printed waits to be written
    outcome = subprocess.run(
        [sys.executable, "-c", BUSY], capture_output=True, text=True, check=False, env=environment
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, "said", "")


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("longhand_server", ["--print-config"], 0),
        ("longhand_server.bulk", ["nothing.png", "--out", "rows"], 2),
    ],
)
def test_every_program_ends_so(
    module: str, arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def end(code: int) -> None:
        raise EndedError(code)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    for name in ("longhand_server.__main__", "longhand_server.bulk"):  # runpy warns of what is there already
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(EndedError) as caught:
        runpy.run_module(module, run_name="__main__")
    assert caught.value.args == (code,)


# In the place of a library: signals its process while it is imported, and fails as those made with pybind11 do.
LIBRARY = """
import os, signal
try:
    os.kill(os.getpid(), signal.{name})
except BaseException as error:
    raise ImportError("initialization failed") from error
"""


@pytest.mark.parametrize(
    ("name", "module", "imported", "code"),
    [
        ("SIGTERM", "longhand_server", "grpc_health", 0),
        ("SIGINT", "longhand_server", "grpc_health", 130),
        ("SIGINT", "longhand_server", "tomllib", 130),
        ("SIGINT", "longhand_server.bulk", "cv2", 130),
        ("SIGINT", "longhand_server.bulk", "tarfile", 130),
    ],
)
def test_a_signal_while_it_imports_ends_it_quietly(
    name: str, module: str, imported: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / f"{imported}.py").write_text(LIBRARY.format(name=name))
    (tmp_path / "a.png").touch()
    arguments = [] if module == "longhand_server" else [str(tmp_path), "--out", str(tmp_path / "rows")]
    outcome = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (code, "", "")


@pytest.mark.parametrize(
    ("shell", "reason"),
    [
        ("exec $0 --print-config >/dev/full", "[Errno 28] No space left on device"),
        ("ulimit -n 8; exec $0 --port 0 --workers 2", "[Errno 24] Too many open files"),
    ],
)
def test_what_the_system_does_not_allow_is_told_in_one_line(shell: str, reason: str) -> None:
    command = ["bash", "-c", shell.replace("$0", f"{sys.executable} -m longhand_server")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert outcome.returncode == 1
    assert outcome.stderr == f"longhand_server: the system does not let it go on: {reason}\n"
