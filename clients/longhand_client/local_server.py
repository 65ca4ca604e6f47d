"""A Longhand server of one's own, as a child process on a free local port."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from longhand_client.errors import LonghandError

# It is for this program alone, wherever the environment (LONGHAND_...) has a server listen, and for whom.
_PRIVATE = (
    "--host=127.0.0.1",
    "--port=0",
    "--tls-cert=",
    "--tls-key=",
    "--tls-client-ca=",
    "--token-file=",
    "--metrics-port=-1",
)


class LocalServer:
    """Starts `python -m longhand_server` and stops it at the end of the `with` block.

    Args:
        arguments: further arguments for the server, such as ("--model", "DIR").
        start_timeout_s: how long the model may take to load.

    Raises:
        LonghandError: no temporary folder can be made; on entering: the server is not installed, or did not start
            (with its own words).
    """

    def __init__(self, arguments: Sequence[str] = (), *, start_timeout_s: float = 60.0) -> None:
        self._arguments = list(arguments)
        self._start_timeout_s = start_timeout_s
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="longhand-")
        except OSError as error:
            raise LonghandError(f"no folder for the server's log: {error} (set TMPDIR to another)") from error
        self._log = Path(self._folder.name) / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        if importlib.util.find_spec("longhand_server") is None:
            self._folder.cleanup()
            raise LonghandError(
                "the server is not installed here: pip install '.[server]' in Longhand's folder"
            )
        self._stop_when_terminated()
        port_file = Path(self._folder.name) / "port"
        command = [sys.executable, "-m", "longhand_server", *_PRIVATE, "--port-file", str(port_file)]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command + self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            self.address = f"127.0.0.1:{self._wait_for_port(self._process, port_file)}"
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _stop_when_terminated(self) -> None:
        # By default SIGTERM ends a program without leaving its `with` blocks, and the server would stay behind.
        if _handler_can_change() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)

    def _wait_for_port(self, process: subprocess.Popen[bytes], port_file: Path) -> int:
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline:
            content = port_file.read_text(encoding="ascii").strip() if port_file.exists() else ""
            if content:
                return int(content)
            if process.poll() is not None:
                raise LonghandError(f"the server did not start:\n{self.log.strip()}")
            time.sleep(0.05)
        raise LonghandError(
            f"the server was not ready after {self._start_timeout_s:.0f} s:\n{self.log.strip()}"
        )

    def _stop(self) -> None:
        if _handler_can_change() and signal.getsignal(signal.SIGTERM) is _leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()


def _handler_can_change() -> bool:
    return threading.current_thread() is threading.main_thread()


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)
