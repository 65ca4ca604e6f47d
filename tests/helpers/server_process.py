"""A real server in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from helpers.process_tree import cpu_seconds

_START_SECONDS = 30.0


class ServerProcess:
    """Starts ``python -m longhand_server``, after ``prefix`` if there is one, and waits until it answers.

    Attributes:
        address: ``127.0.0.1:PORT``.
        process: The process.
        log: The file that gets its standard output and error.
    """

    def __init__(
        self,
        model: Path | str,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        module: Sequence[str] = ("longhand_server",),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        port_file = folder / "port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", *module]
        command += ["--model", str(model), "--port", "0", "--port-file", str(port_file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        end = time.monotonic() + _START_SECONDS
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"the server did not start:\n{self.text()}")
            time.sleep(0.02)
        self.address = f"127.0.0.1:{int(port_file.read_text())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def memory(self) -> int:
        """Its resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """The CPU time that it has used."""
        return cpu_seconds([self.process.pid])

    def thread_seconds(self) -> float:
        """The CPU time that the threads which live now have used, to the microsecond."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        nanoseconds = 0
        for task in tasks:
            with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def server_command(*arguments: str) -> list[str]:
    """The command line of a server."""
    return [sys.executable, "-m", "longhand_server", *arguments]


def run_server(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a server that is expected to stop by itself."""
    return subprocess.run(server_command(*arguments), capture_output=True, text=True, timeout=60, check=False)
