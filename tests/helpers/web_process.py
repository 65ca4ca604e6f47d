"""The web page's gateway in a process of its own."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True)
class WebProcess:
    """A running gateway."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def wait(self, process: subprocess.Popen[bytes], path: str = "/icon.svg") -> None:
        """Waits until it answers; raises the last error where it does not."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask(path)
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_web(address: str, *arguments: str) -> Iterator[WebProcess]:
    """Starts the gateway for a service, waits until it answers, and stops it in the end."""
    port = free_port()
    command = [sys.executable, "-m", "longhand_web", "--address", address, "--port", str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    web = WebProcess(port)
    try:
        web.wait(process)
        yield web
    finally:
        process.terminate()
        process.wait(15)
