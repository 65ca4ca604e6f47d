"""Several server processes on one port, and one parent that restarts what dies.

Each worker listens on the port by itself (SO_REUSEPORT): the kernel gives each new connection to one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from longhand_server.config import ListenConfig, ServerConfig
from longhand_server.errors import ConfigurationError
from longhand_server.gpus import count_gpus
from longhand_server.ports import write_port

_LOG = logging.getLogger(__name__)
SUPERVISED = "LONGHAND_SUPERVISED"
# A worker that dies sooner than this after its start is started again later and later.
_HEALTHY_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0
_READY_PREFIX = b"Longhand serving "


class Supervisor:
    """Runs the workers of one server.

    Args:
        arguments: The command line of the server, without the program.
        config: What it says.
    """

    def __init__(self, arguments: Sequence[str], config: ServerConfig) -> None:
        self._arguments = list(arguments)
        self._config = config
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit code.

        Raises:
            ConfigurationError: The port cannot be bound.
        """
        loop = asyncio.get_running_loop()
        count = self._config.listen.workers
        with _reserve(self._config.listen) as reserved:
            port = reserved.getsockname()[1]
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._forward, signal.SIGHUP)
            first_lines = await asyncio.gather(*(self._start(index, port) for index in range(count)))
            if not all(first_lines):
                # What is wrong stands on standard error already; it would be wrong at every further start.
                return await self._stop()
            print(f"{first_lines[0]} with {count} workers", flush=True)
            if self._config.listen.port_file:
                write_port(Path(self._config.listen.port_file), port)
            watchers = [loop.create_task(self._watch(index, port)) for index in range(count)]
            await self._stopping.wait()
            for watcher in watchers:
                watcher.cancel()
            return await self._stop()

    async def _start(self, index: int, port: int) -> str:
        """Starts a worker; returns the line that it prints when it answers, "" if it dies before."""
        threads = self._config.runtime.threads or max(1, (os.cpu_count() or 1) // self._config.listen.workers)
        extra = ["--workers=1", "--reuse-port=true", f"--port={port}", "--port-file=", f"--threads={threads}"]
        devices = count_gpus()
        if self._config.runtime.device in ("auto", "cuda") and devices > 1:
            extra.append(f"--device=cuda:{index % devices}")
        if self._config.observe.metrics_port > 0:
            extra.append(f"--metrics-port={self._config.observe.metrics_port + index}")
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "longhand_server", *self._arguments, *extra),
            preexec_fn=_ignore_reloads,
            stdin=asyncio.subprocess.PIPE,  # its end tells the worker that this process is gone
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1"},
        )
        self._workers[index] = worker
        assert worker.stdout is not None
        async for line in worker.stdout:
            if line.startswith(_READY_PREFIX):
                return line.decode().strip()
        return ""

    async def _watch(self, index: int, port: int) -> None:
        """Restarts a worker whenever it dies."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            begun = loop.time()
            code = await self._workers[index].wait()
            pause = _FIRST_PAUSE_S if loop.time() - begun > _HEALTHY_S else min(2 * pause, _LONGEST_PAUSE_S)
            _LOG.error("worker %d ended with %d; another one starts in %.1f s", index, code, pause)
            await asyncio.sleep(pause)
            if await self._start(index, port):
                _LOG.info("worker %d serves again", index)

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            if worker.returncode is None:
                # worker.send_signal() polls first, and can take the exit code from under asyncio's own watcher.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    async def _stop(self) -> int:
        self._forward(signal.SIGTERM)
        codes = await asyncio.gather(*(worker.wait() for worker in self._workers.values()))
        # One that was only just starting had not yet learnt to end well.
        return max((abs(code) for code in codes if code != -signal.SIGTERM), default=0)


def _ignore_reloads() -> None:
    """In a worker, before it becomes Python: SIGHUP would kill it until it listens for it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _reserve(listen: ListenConfig) -> socket.socket:
    """A socket that holds the port for the workers without listening on it."""
    host = listen.host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM)[0]
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"port: cannot listen on {listen.host}:{listen.port}: {error.strerror}"
        ) from error
    return reserved
