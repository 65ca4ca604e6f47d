"""Several server processes on one port, and one parent that restarts what dies.

Each worker listens on the port by itself (SO_REUSEPORT): the kernel gives each new connection to one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from longhand_server.config import ServerConfig
from longhand_server.cores import usable_cores
from longhand_server.errors import ConfigurationError
from longhand_server.gpus import count_gpus
from longhand_server.ports import reserve_port, write_port
from longhand_server.settings import to_arguments
from longhand_server.standard_streams import announce

_LOG = logging.getLogger(__name__)
SUPERVISED = "LONGHAND_SUPERVISED"
# A worker that dies sooner than this after its start is started again later and later.
_HEALTHY_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0
# What a worker may take beyond the time that its calls get.
_PATIENCE_S = 10.0
_READY_PREFIX = b"Longhand serving "


class Supervisor:
    """Runs the workers of one server.

    Args:
        config: What the server's command line, environment and file say; workers get all of it, so that one that is
            started again is as the others are, whatever has become of the file.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit code.

        Raises:
            PortTakenError: Another program has the port.
            ConfigurationError: The port cannot be bound for another reason, or there are too few ports for metrics.
        """
        loop = asyncio.get_running_loop()
        count = self._config.listen.workers
        _check_metrics_ports(self._config.observe.metrics_port, count)
        if self._config.listen.host.startswith("unix:"):
            raise ConfigurationError(
                f"host: {self._config.listen.host}: several workers cannot share a Unix socket"
            )
        with reserve_port(self._config.listen) as reserved:
            port = reserved.getsockname()[1]
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._forward, signal.SIGHUP)
            stopping = loop.create_task(self._stopping.wait())
            for index in range(count):
                await self._start(index, port)
            starting = asyncio.gather(*(self._serves(index) for index in range(count)))
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done() or not all(starting.result()):
                # What is wrong stands on standard error already; it would be wrong at every further start.
                return await self._stop(self._workers.values())
            started = starting.result()
            announce(f"{started[0][0]} with {count} workers")
            for index, lines in enumerate(started):
                for line in lines[1:]:
                    announce(f"worker {index}: {line}")
            if self._config.listen.port_file:
                write_port(Path(self._config.listen.port_file), port)
            watchers = [loop.create_task(self._watch(index, port)) for index in range(count)]
            await stopping
            for watcher in watchers:
                watcher.cancel()
            # How those ended that are being replaced is no part of how this ends.
            return await self._stop(
                [worker for worker in self._workers.values() if worker.returncode is None]
            )

    async def _start(self, index: int, port: int) -> None:
        """Starts a worker. Not to be cancelled: asyncio may then wait for ever for the process that it has ended.

        Raises:
            OSError: The system does not let it.
        """
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "longhand_server",
            "--config=",
            *to_arguments(self._worker_config(index, port)),
            preexec_fn=_ignore_reloads,
            stdin=asyncio.subprocess.PIPE,  # its end tells the worker that this process is gone
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1"},
        )
        self._workers[index] = worker

    async def _serves(self, index: int) -> list[str]:
        """The lines that a worker prints when it answers, none if it dies before."""
        output = self._workers[index].stdout
        assert output is not None
        lines: list[str] = []
        expected = 2 if self._config.observe.metrics_port >= 0 else 1
        async for line in output:
            if lines or line.startswith(_READY_PREFIX):
                lines.append(line.decode().strip())
            if len(lines) == expected:
                break
        return lines

    def _worker_config(self, index: int, port: int) -> ServerConfig:
        listen, runtime, observe = self._config.listen, self._config.runtime, self._config.observe
        devices = count_gpus() if runtime.device in ("auto", "cuda") else 0
        return replace(
            self._config,
            listen=replace(listen, workers=1, reuse_port=True, port=port, port_file=""),
            runtime=replace(
                runtime,
                threads=runtime.threads or max(1, usable_cores() // listen.workers),
                device=f"cuda:{index % devices}" if devices > 1 else runtime.device,
            ),
            # 0 is a free port, which each worker tells.
            observe=replace(observe, metrics_port=observe.metrics_port + index * (observe.metrics_port > 0)),
        )

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
            try:
                await asyncio.shield(self._start(index, port))
            except OSError as error:
                # The dead one is waited for again, which takes no time, so that the pause grows.
                _LOG.error("worker %d cannot be started: %s", index, error)
                continue
            if lines := await self._serves(index):
                _LOG.info("worker %d serves again%s", index, "".join(f"; {line}" for line in lines[1:]))

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            if worker.returncode is None:
                # worker.send_signal() polls first, and can take the exit code from under asyncio's own watcher.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    async def _stop(self, workers: Collection[asyncio.subprocess.Process]) -> int:
        """Ends the workers; returns the worst of these ones' exit codes."""
        self._forward(signal.SIGTERM)
        listen = self._config.listen
        ended = asyncio.gather(*(worker.wait() for worker in self._workers.values()))
        try:
            await asyncio.wait_for(asyncio.shield(ended), listen.drain_delay_s + listen.grace_s + _PATIENCE_S)
        except TimeoutError:
            _LOG.error("a worker does not stop within the time that calls get; it is killed")
            self._forward(signal.SIGKILL)
            await ended
        # One that was only just starting had not yet learnt to end well.
        codes = (worker.returncode or 0 for worker in workers)
        return max((abs(code) for code in codes if code != -signal.SIGTERM), default=0)


def _check_metrics_ports(first: int, workers: int) -> None:
    highest = 65_536 - workers
    if first > highest:
        raise ConfigurationError(
            f"metrics_port: got {first}, need at most {highest} with {workers} workers, each of which has its own"
        )


def _ignore_reloads() -> None:
    """In a worker, before it becomes Python: SIGHUP would kill it until it listens for it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
