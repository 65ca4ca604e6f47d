"""The gRPC server: service, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from longhand.v1 import recognition_pb2, recognition_pb2_grpc
from longhand_server.config import ServerConfig
from longhand_server.errors import ConfigurationError
from longhand_server.registry import ModelRegistry, load_recognizer, serve_model
from longhand_server.servicer import RecognitionServicer

# Seconds in which calls that are on their way still arrive and are turned away properly.
_SETTLE_S = 0.3
_LOG = logging.getLogger(__name__)
SERVICE_NAME: str = recognition_pb2.DESCRIPTOR.services_by_name["RecognitionService"].full_name


class LonghandServer:
    """A server that listens, answers, and can be drained.

    Attributes:
        port: The port that it listens on.
        registry: The models served.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        registry: ModelRegistry,
        servicer: RecognitionServicer,
        health_service: health.aio.HealthServicer,
        port: int,
    ) -> None:
        self._server = server
        self._servicer = servicer
        self._health = health_service
        self.registry = registry
        self.port = port

    async def start(self) -> None:
        """Begins to answer; the health service says SERVING from here on."""
        await self._server.start()
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Says NOT_SERVING, refuses new calls, lets accepted ones finish for up to ``grace_s`` seconds."""
        end = asyncio.get_running_loop().time() + grace_s
        await self._health.enter_graceful_shutdown()
        # gRPC would cancel calls that have arrived but whose handlers have not begun, so for a moment the
        # handlers themselves turn new calls away, with UNAVAILABLE, which clients retry elsewhere.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await asyncio.gather(self._servicer.drain(), asyncio.sleep(min(_SETTLE_S, grace_s)))
        # What is still open watches the health service.
        await self._server.stop(min(_SETTLE_S, max(0.0, end - asyncio.get_running_loop().time())))
        await self.registry.close()


async def build_server(config: ServerConfig) -> LonghandServer:
    """Loads the model and binds the port; :meth:`LonghandServer.start` then answers calls.

    Raises:
        InvalidModelError: The model is missing or damaged.
        ConfigurationError: The port cannot be bound or the device is not there.
    """
    recognizer = await asyncio.to_thread(load_recognizer, config)
    registry = ModelRegistry([serve_model(recognizer, config)])
    server = grpc.aio.server(options=_channel_options(config))
    servicer = RecognitionServicer(registry, config.listen)
    recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(servicer, server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"{config.listen.host}:{config.listen.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(f"port: cannot listen on {address}; is another server there?") from error
    return LonghandServer(server, registry, servicer, health_service, port)


async def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    Raises:
        InvalidModelError, ConfigurationError: See :func:`build_server`.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    server = await build_server(config)
    await server.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    model = server.registry.default
    line_model = model.recognizer.line_model
    print(
        f"Longhand serving model {model.name} {model.version} ({line_model.device}, {line_model.runtime}) "
        f"on {config.listen.host}:{server.port}",
        flush=True,
    )
    if config.listen.port_file:
        _write_port(Path(config.listen.port_file), server.port)
    await stop.wait()
    _LOG.info("stopping: finishing accepted calls for up to %g s", config.listen.grace_s)
    await server.drain(config.listen.grace_s)


def _write_port(path: Path, port: int) -> None:
    # Renamed into place, so that nobody reads half a number.
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{port}\n", encoding="ascii")
    partial.replace(path)


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.listen.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share its calls without anybody having asked for it.
        ("grpc.so_reuseport", 0),
    ]
